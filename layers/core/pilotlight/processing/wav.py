"""Read WAV files: PCM of 8 to 32 bits, floating point, A-law and mu-law, in RIFF, RF64 and the extensible form.

It knows one file's bytes, not the request. The header is parsed without the samples, so that these can be weighed.
"""

import functools
import struct
from dataclasses import dataclass

import numpy as np

from pilotlight.errors import InvalidInputError
from pilotlight.runtime.datatypes import Array

CONTAINERS = (b"RIFF", b"RF64", b"BW64")
PCM, FLOAT, A_LAW, MU_LAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
ENCODINGS = {PCM: (8, 16, 24, 32), FLOAT: (32, 64), A_LAW: (8,), MU_LAW: (8,)}  # with the bits of a sample
# The sizes of samples that programs write which do not know them yet: 0, and from here on, near 2 and 4 GB, less the
# header or rounded down (SoX 0x7FFFF000, arecord 0x80000000, ffmpeg 0xFFFFFFFF). The samples go on to the file's end.
MIN_STREAMED_SIZE = 0x7FFF0000  # bytes; no body and no file of the inbox has so many
ENCODING_NAMES = {
    0x02: "Microsoft's ADPCM", 0x11: "IMA ADPCM", 0x31: "GSM 6.10", 0x40: "G.721 ADPCM", 0x50: "MPEG audio",
    0x55: "MP3 within a WAV file", 0x161: "Windows Media Audio",
}  # fmt: skip
MAX_CHUNKS = 1_000  # of a file: a few of them describe it


@dataclass(frozen=True)
class WavHeader:
    """What a WAV file says of its samples, and where they lie."""

    encoding: int
    channels: int
    rate: int
    bits: int  # that one sample takes in the file
    start: int  # of the samples, in bytes
    size: int  # of the samples, in bytes

    @property
    def frame_bytes(self) -> int:
        """The bytes of one sample of each channel."""
        return self.channels * self.bits // 8

    @property
    def frames(self) -> int:
        """The number of samples of each channel; bytes of an unfinished one at the end do not count."""
        return self.size // self.frame_bytes


def is_wav(file: bytes) -> bool:
    """Return whether the file begins as a WAV file does."""
    return file[:4] in CONTAINERS and file[8:12] == b"WAVE"


def parse_header(file: bytes) -> WavHeader:
    """Parse the chunks up to the samples; `InvalidInputError` says what is wrong, for the end of a sentence."""
    encoding = channels = rate = bits = 0
    long_size: int | None = None
    position = 12
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(file):
            break
        name, size = struct.unpack_from("<4sI", file, position)
        content = position + 8
        if name == b"fmt ":
            encoding, channels, rate, bits = parse_format(file, content, size)
        elif name == b"ds64" and content + 16 <= len(file):
            (long_size,) = struct.unpack_from("<Q", file, content + 8)
        elif name == b"data":
            if not channels:
                raise InvalidInputError("has samples before it says what they are; save it again")
            size = resolve_data_size(size, long_size, file, content)
            return WavHeader(encoding, channels, rate, bits, content, size)
        position = content + size + size % 2  # chunks of odd size are followed by one byte
    raise InvalidInputError("is a WAV file without samples: it has no 'data' chunk")


def parse_format(file: bytes, start: int, size: int) -> tuple[int, int, int, int]:
    """Parse the format: encoding, channels, rate and bits."""
    if size < 16 or start + size > len(file):
        raise InvalidInputError("is a WAV file that ends within its header")
    encoding, channels, rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", file, start)
    if encoding == EXTENSIBLE and size >= 26:
        (encoding,) = struct.unpack_from("<H", file, start + 24)
    if encoding not in ENCODINGS:
        name = f", which is {ENCODING_NAMES[encoding]}" if encoding in ENCODING_NAMES else ""
        raise InvalidInputError(
            f"is a WAV file of encoding 0x{encoding:04X}{name}; PCM, floating point, A-law and mu-law are read"
        )
    if not channels or frame_bytes % channels or frame_bytes // channels * 8 not in ENCODINGS[encoding]:
        raise InvalidInputError(
            f"is a WAV file of {channels} channels with {bits} bits and {frame_bytes} bytes for a sample of all, which "
            f"do not go together; {list(ENCODINGS[encoding])} bits are read"
        )
    return encoding, channels, rate, frame_bytes // channels * 8


def resolve_data_size(size: int, long_size: int | None, file: bytes, start: int) -> int:
    """Resolve the bytes of the samples from `start` on; refuse a file that holds fewer than it promises."""
    left = len(file) - start
    if size == 0xFFFFFFFF and long_size is not None:
        size = long_size
    elif size >= MIN_STREAMED_SIZE or (size == 0 and is_streamed(file, start)):
        return left
    if size > left:
        raise InvalidInputError(f"is cut off: it promises {size:,} bytes of samples, and has {left:,}")
    return size


def is_streamed(file: bytes, start: int) -> bool:
    """Return whether a file that promises no samples does so since its size was not known: what follows is not in it.

    Otherwise there are none, and what follows are other chunks, such as the title.
    """
    (riff_size,) = struct.unpack_from("<I", file, 4)
    return bool(riff_size + 8 <= start or riff_size >= MIN_STREAMED_SIZE)


def decode_samples(file: bytes, header: WavHeader) -> Array:
    """Decode the samples to float32, (frames, channels), from -1 to 1."""
    raw = memoryview(file)[header.start : header.start + header.frames * header.frame_bytes]
    return decode_values(raw, header).reshape(header.frames, header.channels)


def decode_values(raw: memoryview, header: WavHeader) -> Array:
    """Decode the values of all channels."""
    if header.encoding == FLOAT:
        return np.frombuffer(raw, f"<f{header.bits // 8}").astype(np.float32)
    if header.encoding != PCM:
        return np.take(expand_table(header.encoding), np.frombuffer(raw, np.uint8))
    if header.bits == 8:
        return np.asarray((np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / 128)
    if header.bits == 24:
        parts = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(parts), 4), np.uint8)
        wide[:, 1:] = parts  # the upper bytes of an integer of 32 bits, which has the sign
        return np.asarray(wide.view("<i4")[:, 0].astype(np.float32) / 2**31)
    return np.asarray(np.frombuffer(raw, f"<i{header.bits // 8}").astype(np.float32) / 2 ** (header.bits - 1))


@functools.cache
def expand_table(encoding: int) -> Array:
    """Return the value of each byte, as G.711 of the ITU defines it."""
    codes = np.arange(256)
    if encoding == MU_LAW:
        code = ~codes & 0xFF
        magnitude = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 7)) - 0x84
        sign = np.where(code & 0x80, -1, 1)
    else:
        code = codes ^ 0x55
        exponent = code >> 4 & 7
        mantissa = (code & 0x0F) << 4
        magnitude = np.where(exponent == 0, mantissa + 8, mantissa + 0x108 << np.maximum(exponent - 1, 0))
        sign = np.where(code & 0x80, 1, -1)
    return np.asarray(sign * magnitude / 2**15, np.float32)
