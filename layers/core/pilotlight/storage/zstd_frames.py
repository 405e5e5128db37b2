"""Files compressed by zstd (RFC 8878), a frame for each part, so that each part can be fetched and unpacked alone.

The only module that imports zstd. Weights hold no repetitions, so what shrinks them is that small numbers are more
frequent than large ones.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from backports import zstd

# A small window: the default one would have each frame that is being unpacked take 8 MB of memory.
ZSTD_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 3,
    zstd.CompressionParameter.window_log: 19,
}


class PackingError(Exception):
    """Something that is not the frame that it should be."""


def compress_file(source: Path, target: Path, part_bytes: int) -> tuple[int, ...]:
    """Write a file's frames, one for each `part_bytes` bytes of it, into another; gives their sizes in bytes."""
    with source.open("rb") as source_file, target.open("wb") as target_file:
        return tuple(
            target_file.write(zstd.compress(data, options=ZSTD_OPTIONS))
            for data in iter(partial(source_file.read, part_bytes), b"")
        )


def decompress_frame(chunks: Iterable[memoryview], size: int) -> Iterator[bytes]:
    """What one frame holds, which are `size` bytes, chunk by chunk; `PackingError` for any other frame."""
    frame, remaining = zstd.ZstdDecompressor(), size
    for chunk in chunks:
        data = decompress_chunk(frame, chunk, remaining + 1)  # one byte more tells a frame that holds too much
        remaining -= len(data)
        if remaining < 0:
            break
        yield data
    if remaining or not frame.eof or frame.unused_data:
        raise PackingError(f"The frame does not hold {size:,} bytes.")


def decompress_chunk(frame: zstd.ZstdDecompressor, chunk: memoryview, max_bytes: int) -> bytes:
    """What the next chunk of a frame gives."""
    try:
        return frame.decompress(chunk, max_bytes)
    except (zstd.ZstdError, EOFError) as exc:
        raise PackingError(f"The frame cannot be unpacked: {exc}.") from exc
