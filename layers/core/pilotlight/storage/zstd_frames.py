"""Files compressed by zstd (RFC 8878), one frame per part, so that each part can be fetched and decompressed alone.

The only module that imports zstd. Weights hold no repetitions; they shrink because small numbers are more frequent than
large ones.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from backports import zstd

from pilotlight.native.calls import NativeCalls

# A small window: with the default one each frame that is being decompressed takes 8 MB of memory.
ZSTD_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 3,
    zstd.CompressionParameter.window_log: 19,
}


class CompressedFrameError(Exception):
    """The data are not the expected frame."""


def build_frame_error(cause: str) -> CompressedFrameError:
    """Build the error of a frame that zstd cannot pack or unpack."""
    return CompressedFrameError(f"The frame cannot be packed or unpacked: {cause}.")


ZSTD = NativeCalls("zstd", build_frame_error, (zstd.ZstdError, EOFError))


@ZSTD
def compress_file(source: Path, target: Path, part_bytes: int) -> tuple[int, ...]:
    """Write the source's frames, one per `part_bytes` bytes, into the target; return their sizes in bytes."""
    with source.open("rb") as source_file, target.open("wb") as target_file:
        return tuple(
            target_file.write(zstd.compress(data, options=ZSTD_OPTIONS))
            for data in iter(partial(source_file.read, part_bytes), b"")
        )


def decompress_frame(chunks: Iterable[memoryview], size: int) -> Iterator[bytes]:
    """Decompress one frame of `size` bytes chunk by chunk; raise `CompressedFrameError` for any other frame."""
    with ZSTD:
        frame, remaining = zstd.ZstdDecompressor(), size
    for chunk in chunks:
        data = decompress_chunk(frame, chunk, remaining + 1)  # one byte more reveals a frame that holds too much
        remaining -= len(data)
        if remaining < 0:
            break
        yield data
    if remaining or not frame.eof or frame.unused_data:
        raise CompressedFrameError(f"The frame does not hold {size:,} bytes.")


@ZSTD
def decompress_chunk(frame: zstd.ZstdDecompressor, chunk: memoryview, max_bytes: int) -> bytes:
    """Decompress the next chunk of a frame."""
    return frame.decompress(chunk, max_bytes)
