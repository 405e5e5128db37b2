"""Decode FLAC, OGG and MP3 files: the only module that imports soundfile, which is libsndfile.

It reads forwards alone: libsndfile cannot seek in a FLAC file that does not say its length, as pipes receive them.
"""

import io

import numpy as np
import soundfile

from pilotlight.errors import InvalidInputError, TooLargeError
from pilotlight.native.calls import NativeCalls
from pilotlight.runtime.datatypes import Array

FORMATS = ("FLAC", "OGG", "MP3")  # no other decoder of libsndfile reads a caller's bytes
SIGNATURES = (b"fLaC", b"OggS", b"ID3", b"\xff")
BLOCK_FRAMES = 65_536
UNKNOWN_FRAMES = 2**62  # from here on, a length is libsndfile's word for an unknown one


def build_decoding_error(cause: str) -> InvalidInputError:
    """Build the error of a file that cannot be decoded, for the end of a sentence."""
    return InvalidInputError(f"is damaged, or no FLAC, OGG or MP3 file: {cause}")


DECODING = NativeCalls("libsndfile", build_decoding_error, (soundfile.SoundFileError, OSError, ValueError, TypeError))


class FileBytes:
    """A file in memory that stays at its beginning when libsndfile seeks before it, as it does in broken MP3 files."""

    def __init__(self, file: bytes) -> None:
        self._file = memoryview(file)
        self._position = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset from the beginning, from here, or from the end."""
        self._position = max(0, (0, self._position, len(self._file))[whence] + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer as far as there are bytes, and return their number."""
        part = self._file[self._position : self._position + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def read(self, count: int) -> bytes:
        """Return so many bytes, or as many as there are."""
        part = bytes(self._file[self._position : self._position + count])
        self._position += len(part)
        return part


class ForwardFile(soundfile.SoundFile):  # type: ignore[misc]  # it has no types
    """A file that is read from its beginning to its end."""

    def seekable(self) -> bool:
        """Return False, so that soundfile does not seek after each block."""
        return False


class CompressedAudio:
    """An open file, whose header is read."""

    def __init__(self, file: bytes) -> None:
        """Open a file; raise `InvalidInputError` if it is none of these formats."""
        with DECODING:
            self._file = ForwardFile(FileBytes(file))
            self.format, self.rate = str(self._file.format), int(self._file.samplerate)
            self.channels, frames = int(self._file.channels), int(self._file.frames)
        self.frames = None if frames >= UNKNOWN_FRAMES else frames  # None: the header does not say
        if self.format not in FORMATS:
            raise build_decoding_error(f"it is {self.format}")

    def decode(self, max_frames: int) -> Array:
        """Decode all samples to float32, (frames,), the mean of the channels; `TooLargeError` beyond `max_frames`."""
        blocks: list[Array] = []
        frames = 0
        while True:
            with DECODING:
                block = np.empty((BLOCK_FRAMES, self.channels), np.float32)
                count = int(self._file.buffer_read_into(block, "float32"))
            blocks.append(block[:count].mean(axis=1))
            frames += count
            if frames > max_frames:
                raise TooLargeError(f"has more than {max_frames:,} samples; send a shorter one")
            if count < BLOCK_FRAMES:
                break
        if self.format == "FLAC" and self.frames is not None and frames < self.frames:
            raise InvalidInputError(f"is cut off: it promises {self.frames:,} samples, and has {frames:,}")
        return np.concatenate(blocks)
