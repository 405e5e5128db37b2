"""Objects on their way into files: whole, in parts, or unpacked from frames."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.contracts.manifest import CompressedFile
from pilotlight.errors import NotFoundError, StoreError
from pilotlight.storage import download
from pilotlight.storage.download import download_object
from pilotlight.storage.object_store import ObjectStore, open_store
from pilotlight.storage.zstd_frames import compress_file

PART = 1000  # bytes, in these tests
CONTENT = np.random.default_rng(0).normal(0, 10, 10_500).astype(np.int8).tobytes()  # as weights are spread


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PART_BYTES", 1000)


@pytest.mark.usefixtures("small_parts")
def test_downloads_in_parts_what_was_put(store: ObjectStore, tmp_path: Path) -> None:
    content = os.urandom(10_500)
    store.put("a/big", content)
    with (tmp_path / "target").open("w+b") as target:
        assert download_object(store, "a/big", target, len(content)) == (
            len(content),
            hashlib.sha256(content).hexdigest(),
        )
    assert (tmp_path / "target").read_bytes() == content


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("size", [0, 999, 1000, 1001, 4999, 5001, 100_000])
def test_an_object_of_another_size_is_told_by_it(store: ObjectStore, tmp_path: Path, size: int) -> None:
    store.put("a/big", bytes(size))
    with (tmp_path / "target").open("w+b") as target:
        assert download_object(store, "a/big", target, 5000)[0] == size
    assert (tmp_path / "target").stat().st_size <= 5000


@pytest.mark.usefixtures("small_parts")
def test_nothing_to_download_is_not_found(store: ObjectStore, tmp_path: Path) -> None:
    with (tmp_path / "target").open("w+b") as target, pytest.raises(NotFoundError):
        download_object(store, "a/big", target, 5000)


@pytest.mark.usefixtures("small_parts")
def test_a_part_that_fails_fails_the_download(tmp_path: Path) -> None:
    class Failing(ObjectStore):
        def copy_range(self, path: str, fd: int, start: int, end: int) -> int:
            if start == 3000:
                raise StoreError("connection reset")
            return super().copy_range(path, fd, start, end)

    memory = open_store("memory://")
    memory.put("a/big", bytes(10_000))
    with (tmp_path / "target").open("w+b") as target, pytest.raises(StoreError, match="connection reset"):
        download_object(Failing("memory://", memory._store), "a/big", target, 10_000)


@given(data=st.binary(max_size=4096), part=st.integers(1, 500))
def test_the_hash_follows_the_bytes_whatever_the_parts(data: bytes, part: int) -> None:
    memory = open_store("memory://")
    memory.put("x", data)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryFile() as target:
        patch.setattr(download, "PART_BYTES", part)
        assert download_object(memory, "x", target, len(data)) == (len(data), hashlib.sha256(data).hexdigest())
        target.seek(0)
        assert target.read() == data


class Counting(ObjectStore):
    """A store in memory that counts what it is asked for."""

    def __init__(self) -> None:
        super().__init__("memory://", open_store("memory://")._store)
        self.parts, self.spans = 0, 0
        self.most_parts, self.most_spans = 100, 100  # after which each fails

    def copy_range(self, path: str, fd: int, start: int, end: int) -> int:
        self.parts += 1
        if self.parts > self.most_parts:
            raise StoreError("connection reset")
        return super().copy_range(path, fd, start, end)

    def stream_range(self, path: str, start: int, end: int) -> Iterator[memoryview]:
        self.spans += 1
        if self.spans > self.most_spans:
            raise StoreError("connection reset")
        return super().stream_range(path, start, end)


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counting:
    """A store that holds the content plain and packed, behind a slow link."""
    monkeypatch.setattr(download, "PART_BYTES", PART)
    monkeypatch.setattr(download, "FAST_BYTES_PER_S", float("inf"))
    store = Counting()
    store.put("big", CONTENT)
    (tmp_path / "plain").write_bytes(CONTENT)
    compress_file(tmp_path / "plain", tmp_path / "packed", PART)
    store.put("big.zst", tmp_path / "packed")
    return store


@pytest.fixture
def packed(tmp_path: Path) -> CompressedFile:
    """The content's packed form."""
    (tmp_path / "plain").write_bytes(CONTENT)
    return CompressedFile("big.zst", PART, compress_file(tmp_path / "plain", tmp_path / "again", PART))


def fetched(store: ObjectStore, packed: CompressedFile) -> bytes:
    """The content after a download, which must find its size and hash."""
    with tempfile.TemporaryFile() as target:
        found = download_object(store, "big", target, len(CONTENT), packed)
        assert found == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
        target.seek(0)
        return target.read()


def test_on_a_slow_link_parts_come_packed_after_the_first(counting: Counting, packed: CompressedFile) -> None:
    assert fetched(counting, packed) == CONTENT
    assert (counting.parts, counting.spans) == (1, 10)


def test_on_a_fast_link_they_come_plain(
    counting: Counting, packed: CompressedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "FAST_BYTES_PER_S", 0.0)
    assert fetched(counting, packed) == CONTENT
    assert (counting.parts, counting.spans) == (11, 0)


def rotten(data: bytes) -> bytes:
    return data[:3000] + bytes([data[3000] ^ 1]) + data[3001:]


@pytest.mark.parametrize("rot", [rotten, lambda data: data[:4000], lambda data: bytes(len(data)), lambda _: b""])
def test_what_is_wrong_in_frames_comes_plain(
    counting: Counting, packed: CompressedFile, caplog: pytest.LogCaptureFixture, rot: Callable[[bytes], bytes]
) -> None:
    counting.put("big.zst", rot(counting.get("big.zst").data))
    with tempfile.TemporaryFile() as target:
        size, sha256 = download_object(counting, "big", target, len(CONTENT), packed)
    assert size == len(CONTENT)
    if counting.parts > 1:
        assert "big.zst is read in its plain form: The " in caplog.text
    else:  # zstd alone cannot tell each wrong frame, the hash does
        assert sha256 != hashlib.sha256(CONTENT).hexdigest()


def test_frames_that_are_gone_come_plain(
    counting: Counting, packed: CompressedFile, caplog: pytest.LogCaptureFixture
) -> None:
    counting.delete("big.zst")
    assert fetched(counting, packed) == CONTENT
    assert counting.parts == 11
    assert "There is nothing at memory:///big.zst" in caplog.text


@pytest.mark.parametrize("change", [lambda sizes: sizes[:4], lambda sizes: (*sizes[:4], 7, *sizes[5:])])
def test_frames_that_are_not_told_right_come_plain(
    counting: Counting, packed: CompressedFile, change: Callable[[tuple[int, ...]], tuple[int, ...]]
) -> None:
    wrong = CompressedFile(packed.path, packed.part, change(packed.frames))
    assert fetched(counting, wrong) == CONTENT
    assert counting.parts > 5


def test_frames_that_cannot_be_read_come_plain(counting: Counting, packed: CompressedFile) -> None:
    counting.most_spans = 4
    assert fetched(counting, packed) == CONTENT
    assert counting.parts == 7


def test_a_store_that_is_away_fails_the_download(counting: Counting, packed: CompressedFile) -> None:
    counting.most_spans, counting.most_parts = 4, 1
    with pytest.raises(StoreError, match="connection reset"):
        fetched(counting, packed)
