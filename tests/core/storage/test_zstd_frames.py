"""Frames of zstd: what went in comes out, and nothing else does."""

import itertools
import tempfile
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.storage.zstd_frames import CompressedFrameError, compress_file, decompress_frame


def frames(content: bytes, part: int) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder) / "plain", Path(folder) / "packed"
        plain.write_bytes(content)
        sizes = compress_file(plain, packed, part)
        whole = packed.read_bytes()
    assert sum(sizes) == len(whole)
    return [whole[start:end] for start, end in pairwise(accumulate(sizes, initial=0))]


def chunks(data: bytes, size: int) -> list[memoryview]:
    return [memoryview(data)[start : start + size] for start in range(0, len(data), size)]


@given(content=st.binary(max_size=5000), part=st.integers(1, 2000), chunk=st.integers(1, 3000))
def test_each_frame_holds_its_part(content: bytes, part: int, chunk: int) -> None:
    found = frames(content, part)
    assert len(found) == -(-len(content) // part)
    for start, frame in zip(range(0, len(content), part), found, strict=True):
        wanted = content[start : start + part]
        assert b"".join(decompress_frame(chunks(frame, chunk), len(wanted))) == wanted


def test_the_zstd_program_reads_the_file_as_well() -> None:
    assert zstd.decompress(b"".join(frames(b"weights" * 1000, 999))) == b"weights" * 1000


@given(data=st.binary(max_size=500), size=st.integers(0, 100))
def test_anything_else_is_said_to_be_none(data: bytes, size: int) -> None:
    with pytest.raises(CompressedFrameError):
        list(decompress_frame([memoryview(data)], size))


@pytest.mark.parametrize("said", [0, 1, 2_999, 3_001, 1 << 40])
def test_a_frame_of_another_size_is_refused(said: int) -> None:
    (frame,) = frames(b"\x01" * 3_000, 5_000)
    with pytest.raises(CompressedFrameError, match=f"does not hold {said:,} bytes"):
        list(decompress_frame([memoryview(frame)], said))


def test_a_bomb_gives_no_more_than_was_promised() -> None:
    (bomb,) = frames(bytes(100 << 20), 200 << 20)
    given_out = bytearray()
    with pytest.raises(CompressedFrameError):
        given_out.extend(itertools.chain.from_iterable(decompress_frame(chunks(bomb, 64), 1000)))
    assert len(given_out) <= 1000


def test_what_follows_a_frame_is_refused() -> None:
    (frame,) = frames(b"weights", 100)
    with pytest.raises(CompressedFrameError):
        list(decompress_frame([memoryview(frame), memoryview(b"more")], 7))
    with pytest.raises(CompressedFrameError):
        list(decompress_frame([memoryview(frame + frame)], 7))
