"""Files compressed by zstd (RFC 8878), a frame for each part, so that each part can be fetched and unpacked alone.

The only module that imports zstd. Weights hold no repetitions, so what shrinks them is that small numbers are more
frequent than large ones.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from backports import zstd

# A small window: the default one would have each frame that is being unpacked take 8 MB of memory.
OPTIONS: dict[int, int] = {zstd.CompressionParameter.compression_level: 3, zstd.CompressionParameter.window_log: 19}


class PackingError(Exception):
    """Something that is not the frame that it should be."""


def pack(source: Path, target: Path, part: int) -> tuple[int, ...]:
    """Write a file's frames, one for each `part` bytes of it, into another; gives their sizes in bytes."""
    with source.open("rb") as plain, target.open("wb") as packed:
        return tuple(
            packed.write(zstd.compress(data, options=OPTIONS)) for data in iter(partial(plain.read, part), b"")
        )


def unpack(chunks: Iterable[memoryview], size: int) -> Iterator[bytes]:
    """What one frame holds, which are `size` bytes, chunk by chunk; `PackingError` for any other frame."""
    frame, left = zstd.ZstdDecompressor(), size
    for chunk in chunks:
        data = unpacked(frame, chunk, left + 1)  # one byte more tells a frame that holds too much
        left -= len(data)
        if left < 0:
            break
        yield data
    if left or not frame.eof or frame.unused_data:
        raise PackingError(f"The frame does not hold {size:,} bytes.")


def unpacked(frame: zstd.ZstdDecompressor, chunk: memoryview, most: int) -> bytes:
    """What the next chunk of a frame gives."""
    try:
        return frame.decompress(chunk, most)
    except (zstd.ZstdError, EOFError) as exc:
        raise PackingError(f"The frame cannot be unpacked: {exc}.") from exc
