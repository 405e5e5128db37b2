"""WAV files of every kind that programs write, read as libsndfile reads them, and broken ones refused in a sentence."""

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.errors import InvalidInputError
from pilotlight.processing import wav
from pilotlight.runtime.datatypes import Array

SOUND = np.random.default_rng(0).uniform(-0.9, 0.9, (301, 2)).astype(np.float32)
SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")


def write(subtype: str = "PCM_16", kind: str = "WAV", sound: Array = SOUND, rate: int = 8000) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, sound, rate, format=kind, subtype=subtype)
    return target.getvalue()


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(content) if size is None else size) + content + b"\0" * (len(content) % 2)


def build(*chunks: bytes, container: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return container + struct.pack("<I", len(body)) + body


def describe(encoding: int = 1, channels: int = 1, rate: int = 8000, frame_bytes: int = 2, bits: int = 16) -> bytes:
    return chunk(b"fmt ", struct.pack("<HHIIHH", encoding, channels, rate, rate * frame_bytes, frame_bytes, bits))


def read(file: bytes) -> Array:
    return wav.decode_samples(file, wav.parse_header(file))


def read_or_refuse(file: bytes) -> Array | None:
    """The samples, or None if the file is refused in a sentence; any other exception fails the test."""
    try:
        return read(file)
    except InvalidInputError:
        return None


@pytest.mark.parametrize("subtype", SUBTYPES)
@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64"])
def test_samples_are_those_that_libsndfile_reads(subtype: str, kind: str) -> None:
    file = write(subtype, kind)
    expected, rate = soundfile.read(io.BytesIO(file), dtype="float32", always_2d=True)
    header = wav.parse_header(file)
    assert (header.rate, header.channels, header.frames) == (rate, 2, 301)
    np.testing.assert_array_equal(read(file), expected)


@pytest.mark.parametrize("encoding", [6, 7])
def test_every_code_of_telephony_is_that_of_libsndfile(encoding: int) -> None:
    file = build(describe(encoding, frame_bytes=1, bits=8), chunk(b"data", bytes(range(256))))
    expected, _ = soundfile.read(io.BytesIO(file), dtype="float32", always_2d=True)
    np.testing.assert_array_equal(read(file), expected)


def test_other_chunks_of_odd_size_are_passed_over() -> None:
    samples = struct.pack("<3h", 1, -2, 32767)
    file = build(chunk(b"LIST", b"odd"), describe(), chunk(b"bext", b"x" * 601), chunk(b"data", samples), b"id3 ")
    np.testing.assert_array_equal(read(file)[:, 0] * 32768, [1, -2, 32767])


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFDB, 0x80000000, 0xFFFFFF00, 0xFFFFFFDB, 0xFFFFFFFF])
def test_a_streamed_file_ends_where_it_ends(size: int) -> None:
    file = build(describe(), chunk(b"data", struct.pack("<2h", 5, 6), size))
    for riff_size in (0, 36, min(size + 36, 0xFFFFFFFF)):  # SoX, Python's wave, arecord and ffmpeg
        sent = file[:4] + struct.pack("<I", riff_size) + file[8:]
        np.testing.assert_array_equal(read(sent)[:, 0] * 32768, [5, 6])


def test_chunks_behind_no_samples_are_no_samples() -> None:
    assert read(build(describe(), chunk(b"data", b""), chunk(b"LIST", b"INFOISFT\4\0\0\0Lavf"))).size == 0


def test_an_unfinished_last_sample_does_not_count() -> None:
    file = build(describe(channels=2, frame_bytes=4), chunk(b"data", struct.pack("<3h", 1, 2, 3)))
    np.testing.assert_array_equal(read(file) * 32768, [[1, 2]])


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (build(describe()), "has no 'data' chunk"),
        (build(chunk(b"data", b"\0\0"), describe()), "has samples before it says what they are"),
        (
            build(describe(), chunk(b"data", b"\0" * 8, 4000)),
            "is cut off: it promises 4,000 bytes of samples, and has 8",
        ),
        (build(describe(0x11)), "encoding 0x0011, which is IMA ADPCM; PCM"),
        (build(describe(0x1234)), "encoding 0x1234; PCM"),
        (build(describe(channels=0)), "0 channels"),
        (build(describe(frame_bytes=0, bits=0)), "do not go together"),
        (build(describe(frame_bytes=5, bits=40)), "do not go together"),
        (build(describe(3, frame_bytes=2, bits=16)), "[32, 64] bits are read"),
        (build(describe())[:30], "ends within its header"),
        (b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 100_000, "has no 'data' chunk"),
    ],
)
def test_what_is_wrong_is_said(file: bytes, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read(file)
    assert message in str(caught.value)


@given(st.sampled_from(SUBTYPES), st.integers(1, 3), st.integers(0, 40), st.randoms(use_true_random=False))
def test_a_damaged_file_is_read_or_refused(subtype: str, channels: int, cut: int, random: st.DataObject) -> None:
    file = bytearray(write(subtype, sound=np.zeros((20, channels), np.float32)))
    for _ in range(4):
        file[random.randrange(len(file))] = random.randrange(256)  # type: ignore[attr-defined]  # a random.Random
    damaged = bytes(file[: len(file) - cut])
    if not wav.is_wav(damaged):
        return
    samples = read_or_refuse(damaged)
    assert samples is None or (samples.dtype == np.float32 and samples.nbytes <= 4 * len(damaged))
