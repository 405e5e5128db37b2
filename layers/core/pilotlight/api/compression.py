"""Content encodings of HTTP bodies, gzip and deflate: decompression with a limit, compression on request.

zlib comes with python; the module does not know what the bytes mean.
"""

import gzip
import re
import zlib
from io import BytesIO

from pilotlight.errors import InvalidInputError, TooLargeError, UnsupportedTypeError

# Of a body once decompressed: 6 MB of gzip may hold a thousand times as much.
MAX_DECOMPRESSED_BYTES = 64_000_000
MAX_GZIP_MEMBERS = 10_000  # of a body; bgzip begins another one with every 64 kB
GZIP_MEMBER_START = b"\x1f\x8b\x08"  # may be in compressed data too, once in 16 MB
MIN_COMPRESSIBLE_BYTES = 1024  # bytes; a smaller body gains less than its header costs
ZERO_WEIGHT = re.compile(r"q=0(\.0{0,3})?")  # the weight of an encoding that is refused; RFC 9110, 12.4.2
ZLIB_WINDOW_BITS = {
    "gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,
}  # zlib's window bits; HTTP's deflate is a zlib stream

GZIP_NAMES = {"x-gzip": "gzip"}  # its older name; RFC 9110, 8.4.1.3


def decompress_body(body: bytes, encoding: str, max_bytes: int | None = None) -> bytes:
    """Decompress a body by its `Content-Encoding`; never hold more than `max_bytes` of it, by default the constant.

    Raises `InvalidInputError` for bytes of another encoding, `TooLargeError` beyond the limit, `UnsupportedTypeError`
    for an unknown encoding, or for one within another.
    """
    encoding = parse_encoding(encoding)
    if not encoding:
        return body
    limit = max(1, MAX_DECOMPRESSED_BYTES if max_bytes is None else max_bytes)  # for zlib, 0 is no limit
    window_bits = ZLIB_WINDOW_BITS[encoding]
    if encoding == "deflate" and not has_zlib_header(body):
        window_bits = -zlib.MAX_WBITS  # without zlib's header, as old clients of Microsoft write it
    stream = zlib.decompressobj(window_bits)
    try:
        data = stream.decompress(body, limit)
    except zlib.error as exc:
        raise InvalidInputError(f"The body is not {encoding}, as its Content-Encoding says: {exc}.") from exc
    if stream.unconsumed_tail:
        raise build_size_error(limit)
    if not stream.eof:
        raise InvalidInputError(f"The body ends in the middle of its {encoding}.")
    return decompress_gzip_members(body, encoding, limit) if stream.unused_data else data


def parse_encoding(text: str) -> str:
    """Parse a `Content-Encoding` to the one of ours that it names; empty if the body is as it is."""
    names = [name.strip().lower() for name in text.split(",")]  # which is a list; RFC 9110, 8.4
    applied = [GZIP_NAMES.get(name, name) for name in names if name not in ("", "identity")]
    if len(applied) > 1 or not ZLIB_WINDOW_BITS.keys() >= set(applied):
        raise UnsupportedTypeError(
            f"Content-Encoding {', '.join(applied)[:100]!r} is not served; use {', '.join(ZLIB_WINDOW_BITS)}."
        )
    return applied[0] if applied else ""


def has_zlib_header(body: bytes) -> bool:
    """Return whether a body begins as a zlib stream: method 8, and two bytes that are a multiple of 31 (RFC 1950)."""
    return len(body) < 2 or (body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0)


def decompress_gzip_members(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Decompress a body with data after the end of its encoding: gzip may have another member (RFC 1952, 2.2)."""
    if encoding != "gzip":
        raise InvalidInputError(f"The body goes on behind the end of its {encoding}.")
    if body.count(GZIP_MEMBER_START) > MAX_GZIP_MEMBERS:
        raise InvalidInputError(f"The body has more than {MAX_GZIP_MEMBERS:,} members of gzip; send it as one.")
    try:
        with gzip.GzipFile(fileobj=BytesIO(body)) as members:
            data = members.read(max_bytes + 1)
    except (OSError, EOFError, zlib.error) as exc:
        raise InvalidInputError(f"The body goes on behind the end of its gzip, with what is none: {exc}.") from exc
    if len(data) > max_bytes:
        raise build_size_error(max_bytes)
    return data


def build_size_error(max_bytes: int) -> TooLargeError:
    """Build the error for a body that exceeds the limit when decompressed."""
    return TooLargeError(f"The body is more than {max_bytes:,} bytes once decompressed; send fewer items at once.")


def compress_body(body: bytes, accept_encoding: str) -> tuple[bytes, str | None]:
    """Compress the body in the first accepted encoding that we have, and return its name; else return it unchanged."""
    if len(body) < MIN_COMPRESSIBLE_BYTES or not accept_encoding:
        return body, None
    offers = [offer.partition(";") for offer in accept_encoding.lower().split(",")]
    accepted_names = [
        name.strip() for name, _, quality in offers if not ZERO_WEIGHT.fullmatch(quality.replace(" ", ""))
    ]
    encoding = next((name for name in accepted_names if name in ZLIB_WINDOW_BITS), None)
    if encoding is None:
        return body, None
    # Level 1: tensors hardly compress, and the caller waits.
    return (gzip.compress(body, 1, mtime=0) if encoding == "gzip" else zlib.compress(body, 1)), encoding
