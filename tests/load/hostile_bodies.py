"""Bodies that cost more than they weigh, each in the forms in which a client could bring it.

A form that a door does not have is left out: a message has no content encoding, and only a file is a table.
"""

import base64
import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from arro3.core import Array, DataType, Table
from arro3.io import write_parquet
from PIL import Image as Pillow

MESSAGE_BYTES = 1024 * 1024  # SQS's limit
EVENT_BYTES = 6 * 1024 * 1024  # Lambda's; a body in base64 takes four thirds of its size
MEMBER = 10_000_000  # bytes that one member of a compressed body becomes
IMAGE = 64  # numbers of a digit
BINARY_HEADER = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class HostileBody:
    """One body. `v2` and `mlflow` are JSON, or pretend to be; `binary` is a head, what follows it, and its length.

    `encoded` is what is sent in place of the JSON, with `encoding`. `file` is a name's end and content for the inbox;
    without one, and without an encoding, it is `v2` as a line.
    """

    name: str
    model: str
    v2: bytes
    mlflow: bytes | None = None
    binary: tuple[bytes, bytes, str] | None = None
    encoding: str = ""
    encoded: Callable[[bytes], bytes] = bytes
    message: bytes | None = None  # in place of `v2`, which may be too long for a queue
    file: tuple[str, bytes] | None = None


def build_v2(shape: str, data: str, datatype: str = "FP32", name: str = "image", more: str = "") -> bytes:
    """Build a V2 body with one input."""
    given = f'{{"name":"{name}","shape":{shape},"datatype":"{datatype}"{more},"data":{data}}}'
    return f'{{"inputs":[{given}]}}'.encode()


def build_binary(shape: str, tail: bytes, datatype: str = "FP32", name: str = "image") -> tuple[bytes, bytes, str]:
    """Build the same in binary form."""
    size = f'"parameters":{{"binary_data_size":{len(tail)}}}'
    head = f'{{"inputs":[{{"name":"{name}","shape":{shape},"datatype":"{datatype}",{size}}}]}}'.encode()
    return head, tail, str(len(head))


def build_zero_images(count: int) -> HostileBody:
    """Build so many black digits, which compress to nothing."""
    row = "[" + ",".join("0" * IMAGE) + "]"
    flat = "[" + "0," * (count * IMAGE - 1) + "0]"
    nested = '{"inputs":[' + ",".join([f"[{_fold(row)}]"] * count) + "]}"
    small = MESSAGE_BYTES // (2 * IMAGE) - 10
    return HostileBody(
        f"{count:,} zero images",
        "digits",
        build_v2(f"[{count},1,8,8]", flat),
        nested.encode(),
        build_binary(f"[{count},1,8,8]", bytes(4 * IMAGE * count)),
        "gzip",
        gzip.compress,
        build_v2(f"[{small},1,8,8]", "[" + "0," * (small * IMAGE - 1) + "0]"),
        ("jsonl", build_v2(f"[{count},1,8,8]", flat) + b"\n"),
    )


def _fold(row: str) -> str:
    """Fold a row of 64 numbers to 8 x 8."""
    numbers = row.strip("[]").split(",")
    return "[" + ",".join("[" + ",".join(numbers[at : at + 8]) + "]" for at in range(0, IMAGE, 8)) + "]"


def build_bomb(name: str, encoding: str, encode: Callable[[bytes], bytes]) -> HostileBody:
    """Build a body that becomes a gigabyte of spaces."""
    body = b" " * MEMBER
    return HostileBody(name, "digits", body, body, (b"{}" + body, b"", "2"), encoding, encode)


def repeat_members(count: int, body: bytes) -> bytes:
    """Compress a body as so many members of one gzip stream."""
    return gzip.compress(body) * count


def deflate_repeatedly(count: int, body: bytes) -> bytes:
    """Compress so many copies of a body as one zlib stream."""
    stream = zlib.compressobj(1)
    return b"".join([*(stream.compress(body) for _ in range(count)), stream.flush()])


def build_number_bodies() -> Iterator[HostileBody]:
    """Build bodies whose numbers are none, or are too long or too large."""
    for word in ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" * 100_000, "0." + "1" * 100_000, "1e-400"):
        data = f"[{','.join([word] + ['0'] * 63)}]"
        name = word if len(word) < 20 else f"{word[:2]}... of 100,000 digits"
        value = struct.unpack("<f", struct.pack("<f", _to_float(word)))[0]
        tail = np.full(IMAGE, value, "<f4").tobytes()
        rows = f'{{"inputs":[[{_fold(data)}]]}}'.encode()
        yield HostileBody(name, "digits", build_v2("[1,1,8,8]", data), rows, build_binary("[1,1,8,8]", tail))


def _to_float(word: str) -> float:
    try:
        return float(np.clip(float(word), -3e38, 3e38)) if "e" in word else float(word)
    except (OverflowError, ValueError):
        return 0.0


def build_shape_bodies() -> Iterator[HostileBody]:
    """Build bodies whose declared shape is not what they bring."""
    shapes = {
        "shape of 2^40 images": "[1099511627776,1,8,8]",
        "shape of -1 images": "[-1,1,8,8]",
        "shape of 2^62 images": "[4611686018427387904,1,8,8]",
        "shape whose product wraps to 64": "[4294967296,4294967296,8,8]",
        "shape of 0 x 2^62": "[0,4611686018427387904,8,8]",
        "shape of 10^30": "[1000000000000000000000000000000,1,8,8]",
        "shape of 100,000 dimensions": "[" + "1," * 99_999 + "64]",
    }
    for name, shape in shapes.items():
        yield HostileBody(name, "digits", build_v2(shape, "[0]"), b'{"inputs":[]}', build_binary(shape, bytes(4)))


def build_json_bodies() -> Iterator[HostileBody]:
    """Build bodies that are JSON of an unusual kind, or none."""
    deep, right = 100_000, build_v2("[1,1,8,8]", "[" + "0," * 63 + "0]")
    arrays = "[" * deep + "]" * deep
    objects = '{"a":' * deep + "1" + "}" * deep
    yield HostileBody(
        "100,000 nested arrays", "digits", build_v2("[1,1,8,8]", arrays), f'{{"inputs":{arrays}}}'.encode()
    )
    yield HostileBody(
        "100,000 nested objects", "digits",
        build_v2("[1,1,8,8]", "[0]", more=f',"parameters":{objects}'), f'{{"inputs":{objects}}}'.encode(),
    )  # fmt: skip
    many = ",".join(f'"k{number}":1' for number in range(200_000)).encode()
    yield HostileBody("200,000 keys", "digits", b"{" + many + b"," + right[1:], b'{"inputs":{' + many + b"}}", message=b"{" + many[:MESSAGE_BYTES // 2].rpartition(b",")[0] + b"," + right[1:])  # fmt: skip  # noqa: E501
    same = b'"inputs":[],' * 50_000
    yield HostileBody("50,000 equal keys", "digits", b"{" + same + right[1:], b"{" + same + b'"inputs":[]}')
    yield HostileBody("invalid UTF-8", "digits", right.replace(b"image", b"im\xff\xfege"), b'{"inputs":["\xff\xfe"]}')
    lone = build_v2("[1]", '["\\ud800"]', "BYTES", "text")
    yield HostileBody("lone surrogate", "sentences", lone, b'{"inputs":["\\ud800"]}')
    yield HostileBody("byte-order mark", "digits", b"\xef\xbb\xbf" + right, b'\xef\xbb\xbf{"inputs":[]}')
    yield HostileBody(
        "1,000,000 empty rows", "digits",
        build_v2("[1000000,0]", "[" + "[]," * 999_999 + "[]]"), b'{"inputs":[' + b"[]," * 999_999 + b"[]]}",
        message=build_v2("[300000,0]", "[" + "[]," * 299_999 + "[]]"),
        file=("csv", b"image\n" + b"\n" * 1_000_000),
    )  # fmt: skip
    records = b'{"dataframe_records":[' + b"{}," * 299_999 + b"{}]}"
    yield HostileBody("300,000 empty records", "digits", records, records)


def build_echo_bodies() -> Iterator[HostileBody]:
    """Build bodies of which an answer could quote more than Lambda sends."""
    right = build_v2("[1,1,8,8]", "[" + "0," * 63 + "0]")
    for name, sign, count in (("id of quotes", r"\"", 2_100_000), ("id of line separators", "\u2028", 1_400_000)):
        body = b'{"id":"' + (sign * count).encode() + b'",' + right[1:]
        small = b'{"id":"' + (sign * (count // 10)).encode() + b'",' + right[1:]
        yield HostileBody(
            name, "digits", body, b'{"inputs":[], "id":"' + (sign * count).encode() + b'"}', message=small
        )
    for name, sign in (("input named by 4 MB of zeros", r"\u0000"), ("input named by 4 MB of backslashes", r"\\")):
        long = sign * (4_000_000 // len(sign))
        yield HostileBody(
            name, "digits", build_v2("[1,1,8,8]", "[0]", name=long), f'{{"inputs":{{"{long}":[0]}}}}'.encode(),
            build_binary("[1,1,8,8]", bytes(4 * IMAGE), name=long), message=build_v2("[1]", "[0]", name=long[:600_000]),
        )  # fmt: skip
    fields = "{" + ",".join(f'"{number}":0' for number in range(300_000)) + "}"
    columns = f'{{"dataframe_records":[{fields},{{}}]}}'.encode()
    yield HostileBody("300,000 columns", "digits", columns, columns, message=columns[:900_000])
    wide = build_v2("[1,1,8,8]", "[" + "0," * 63 + "0]")[:-1] + b',"outputs":[' + b'{"name":"logits"},' * 60_000
    wide = wide[:-1] + b"]}"
    small = build_v2("[1,1,8,8]", "[" + "0," * 63 + "0]")[:-1] + b',"outputs":[' + b'{"name":"logits"},' * 20_000
    yield HostileBody("one output 60,000 times", "digits", wide, message=small[:-1] + b"]}")


def build_length_bodies() -> Iterator[HostileBody]:
    """Build bodies in binary form whose lengths lie."""
    head, tail, _ = build_binary("[1,1,8,8]", bytes(4 * IMAGE))
    for name, length in (("head longer than the body", "99999999"), ("head of 10^30 bytes", "1" + "0" * 30), ("head of -1 bytes", "-1")):  # fmt: skip  # noqa: E501
        yield HostileBody(name, "digits", head, None, (head, tail, length))
    for name, wrong in (
        ("text of 2^32 - 1 bytes", struct.pack("<I", 2**32 - 1) + b"x"),
        ("1,000,000 empty texts", bytes(4_000_000)),
    ):
        shape = "[1000000]" if len(wrong) > 100 else "[1]"
        texts = "[" + '"",' * 999_999 + '""]' if len(wrong) > 100 else '["x"]'
        yield HostileBody(
            name, "sentences", build_v2(shape, texts, "BYTES", "text"), f'{{"inputs":{texts}}}'.encode(),
            build_binary(shape, wrong, "BYTES", "text"), message=build_v2("[300000]", "[" + '"",' * 299_999 + '""]', "BYTES", "text"),  # noqa: E501
        )  # fmt: skip


def build_text_bodies() -> Iterator[HostileBody]:
    """Build texts that are long, or very many."""
    for name, text in (
        ("text of 1 MB without a space", "a" * 1_000_000),
        ("text of 1 MB of words", "the flame " * 100_000),
        ("text of 1 MB of one CJK sign", "火" * 333_000),
    ):
        written = json.dumps([text], ensure_ascii=False)
        raw = text.encode()
        yield HostileBody(
            name, "sentences", build_v2("[1]", written, "BYTES", "text"), f'{{"inputs":{written}}}'.encode(),
            build_binary("[1]", struct.pack("<I", len(raw)) + raw, "BYTES", "text"), "gzip", gzip.compress,
            build_v2("[1]", json.dumps([text[:300_000]], ensure_ascii=False), "BYTES", "text"),
            ("jsonl", build_v2("[1]", written, "BYTES", "text") + b"\n"),
        )  # fmt: skip
    many = "[" + '"a",' * 99_999 + '"a"]'
    yield HostileBody(
        "100,000 texts of a letter", "sentences", build_v2("[100000]", many, "BYTES", "text"),
        f'{{"inputs":{many}}}'.encode(), build_binary("[100000]", b"\1\0\0\0a" * 100_000, "BYTES", "text"),
    )  # fmt: skip


def build_image_bodies() -> Iterator[HostileBody]:
    """Build images whose pixels take far more memory than their file."""
    for name, content, suffix in (
        ("PNG of 30,000 x 30,000", build_png(30_000, 30_000), "png"),
        ("PNG of 2^31 x 2^31, of no data", build_png_head(2**31 - 1, 2**31 - 1), "png"),
        ("PNG with 200 MB of compressed text", build_png_with_text(200_000_000), "png"),
        ("JPEG of 65,500 x 65,500", build_jpeg_head(65_500, 65_500), "jpg"),
        ("GIF of 65,535 x 65,535", build_gif_head(), "gif"),
        ("gzip of 1 GB in place of an image", repeat_members(100, b" " * MEMBER), "png"),
    ):
        text = json.dumps([base64.b64encode(content).decode()])
        yield HostileBody(
            name, "drawings", build_v2("[1]", text, "BYTES"), f'{{"inputs":{text}}}'.encode(),
            build_binary("[1]", struct.pack("<I", len(content)) + content, "BYTES"), file=(suffix, content),
        )  # fmt: skip
    small = io.BytesIO()
    Pillow.new("L", (1, 1)).save(small, "PNG")
    raw = small.getvalue()
    many = json.dumps([base64.b64encode(raw).decode()] * 20_000)
    yield HostileBody(
        "20,000 images of a pixel", "drawings", build_v2("[20000]", many, "BYTES"), f'{{"inputs":{many}}}'.encode(),
        build_binary("[20000]", (struct.pack("<I", len(raw)) + raw) * 20_000, "BYTES"),
        message=build_v2("[8000]", json.dumps([base64.b64encode(raw).decode()] * 8000), "BYTES"),
    )  # fmt: skip


def build_chunk(kind: bytes, data: bytes) -> bytes:
    """Build a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def build_png_head(width: int, height: int) -> bytes:
    """Build a grey PNG of that size, without its pixels."""
    head = build_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + build_chunk(b"IDAT", zlib.compress(b"")) + build_chunk(b"IEND", b"")


def build_png(width: int, height: int) -> bytes:
    """Build a black PNG of one bit for each pixel: a few kilobytes for a gigapixel."""
    row = bytes(1 + (width + 7) // 8)
    pixels = deflate_repeatedly(height // 100, row * 100)
    head = build_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + build_chunk(b"IDAT", pixels) + build_chunk(b"IEND", b"")


def build_png_with_text(size: int) -> bytes:
    """Build a PNG of a pixel whose comment becomes so many bytes."""
    comment = b"Comment\0\0" + deflate_repeatedly(size // MEMBER, b" " * MEMBER)
    start = build_png(8, 100)
    return start[:33] + build_chunk(b"zTXt", comment) + start[33:]


def build_jpeg_head(width: int, height: int) -> bytes:
    """Build a JPEG whose head says that size."""
    target = io.BytesIO()
    Pillow.new("RGB", (8, 8)).save(target, "JPEG")
    raw = target.getvalue()
    at = raw.index(b"\xff\xc0") + 5
    return raw[:at] + struct.pack(">HH", height, width) + raw[at + 4 :]


def build_gif_head() -> bytes:
    """Build a GIF whose head says the largest size."""
    target = io.BytesIO()
    Pillow.new("P", (8, 8)).save(target, "GIF")
    raw = target.getvalue()
    return raw[:6] + struct.pack("<HH", 65_535, 65_535) + raw[10:]


def build_compressed_bodies() -> Iterator[HostileBody]:
    """Build bodies that are compressed to be large, or wrongly."""
    yield build_bomb("gzip of 1 GB, in 100 members", "gzip", partial(repeat_members, 100))
    yield build_bomb("deflate of 1 GB", "deflate", partial(deflate_repeatedly, 100))
    right = build_v2("[1,1,8,8]", "[" + "0," * 63 + "0]")
    one = HostileBody("", "digits", right, b'{"inputs":[]}', build_binary("[1,1,8,8]", bytes(4 * IMAGE)), "gzip")
    yield replace(one, name="gzip that is cut", encoded=lambda body: gzip.compress(body)[:-12])
    yield replace(one, name="gzip with noise behind it", encoded=lambda body: gzip.compress(body) + b"\x1f\x8b" * 1000)
    yield replace(
        one, name="gzip in gzip of 200 MB", encoding="gzip, gzip",
        encoded=lambda body: gzip.compress(gzip.compress(body + b" " * 200_000_000, 1)),
    )  # fmt: skip
    yield replace(one, name="100,000 members of nothing", encoded=lambda body: gzip.compress(b"") * 100_000)


def build_parquet_bodies() -> Iterator[HostileBody]:
    """Build tables of a few kilobytes with many rows; only a file is a table."""
    number = Array([0.0], DataType.float64())
    tables: dict[str, dict[str, Any]] = {
        "Parquet of 20,000,000 equal rows": {"image": np.zeros(20_000_000, np.float32)},
        "Parquet of one cell of 100 MB": {"image": Array(["x" * 100_000_000], DataType.utf8())},
        "Parquet of 10,000 columns": {f"c{place}": number for place in range(10_000)},
    }
    for name, columns in tables.items():
        target = io.BytesIO()
        write_parquet(Table.from_pydict(columns), target, compression="zstd(1)", max_row_group_size=20_000_000)
        yield HostileBody(name, "digits", b"", file=("parquet", target.getvalue()))


def build_bodies() -> Iterator[HostileBody]:
    """Build all of them, one after the other: some are large before they are compressed."""
    for count in (60_000, 100_000, 200_000):
        yield build_zero_images(count)
    yield from build_compressed_bodies()
    yield from build_json_bodies()
    yield from build_shape_bodies()
    yield from build_number_bodies()
    yield from build_length_bodies()
    yield from build_echo_bodies()
    yield from build_text_bodies()
    yield from build_image_bodies()
    yield from build_parquet_bodies()
