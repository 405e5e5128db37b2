"""Processes of one machine download a shard once, whichever comes first, and keep few copies."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Event

import pytest

from functions.train.data import files
from functions.train.data.files import DataFile, DataRoot, find_files
from functions.train.data.shared_downloads import FOLDER_VARIABLE, MAX_COPIES, PROCESSES_VARIABLE, SharedDownloads
from pilotlight.errors import StoreError
from pilotlight.storage.object_store import ObjectStore, open_store


class Downloads:
    """Downloads of objects whose content is how many there were before, by several processes."""

    def __init__(self, folder: Path, processes: int = 2) -> None:
        self.folder, self.fetched, self.number = folder / "shared", list[str](), count()
        self.shared = [SharedDownloads(self.folder, processes, str(rank)) for rank in range(processes)]

    def take(self, rank: int, key: str) -> str:
        path = self.folder.parent / f"own-{next(self.number)}"
        self.shared[rank].fetch(key, path, self.write(key))
        return path.read_text()

    def write(self, key: str) -> Callable[[Path], None]:
        def download(path: Path) -> None:
            self.fetched.append(key)
            path.write_text(f"{key}, number {len(self.fetched)}")

        return download

    @property
    def copies(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if not path.name.startswith(".")]


def test_each_file_is_downloaded_once_for_all_in_each_pass(tmp_path: Path) -> None:
    downloads = Downloads(tmp_path, processes=3)
    for number in (1, 2):
        taken = {downloads.take(rank, "a") for rank in (number, 0, 3 - number)}
        assert taken == {f"a, number {number}"}
        assert downloads.copies == []  # what all have taken is gone


def test_process_that_comes_during_a_download_waits_for_it(tmp_path: Path) -> None:
    downloads, started, release = Downloads(tmp_path), Event(), Event()

    def download(path: Path) -> None:
        started.set()
        assert release.wait(30)
        path.write_text("slow")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(downloads.shared[0].fetch, "a", tmp_path / "first", download)
        assert started.wait(30)
        second = pool.submit(downloads.take, 1, "a")
        release.set()
        first.result()
        assert second.result() == "slow"
    assert downloads.fetched == []


def test_process_that_asks_again_gets_a_new_copy(tmp_path: Path) -> None:
    downloads = Downloads(tmp_path)
    assert [downloads.take(0, "a"), downloads.take(0, "a"), downloads.take(1, "a")] == [
        "a, number 1",
        "a, number 2",
        "a, number 2",
    ]


def test_process_far_ahead_leaves_few_copies(tmp_path: Path) -> None:
    downloads = Downloads(tmp_path)
    for number in range(12):
        downloads.take(0, f"shard {number}")
    assert len([path for path in downloads.copies if "." not in path.name]) == MAX_COPIES
    assert downloads.take(1, "shard 0") == "shard 0, number 13"


def test_download_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    downloads = Downloads(tmp_path)

    def fail(path: Path) -> None:
        path.write_text("half")
        raise StoreError("The store is away.")

    with pytest.raises(StoreError):
        downloads.shared[0].fetch("a", tmp_path / "half", fail)
    assert downloads.copies == []
    assert downloads.take(1, "a") == "a, number 1"


@pytest.mark.parametrize(("processes", "downloads"), [("2", 1), ("1", 2)])
def test_shards_are_shared_where_the_launcher_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: str, downloads: int
) -> None:
    store, fetched = open_store("memory://"), list[str]()
    store.put("data/a.csv", b"x,y\n1,2\n")
    (file,) = find_files(["store:data/a.csv"], DataRoot(tmp_path, store), (".csv",))
    plain = files.fetch_object

    def fetch(source: ObjectStore, key: str, path: Path) -> None:
        fetched.append(key)
        plain(source, key, path)

    monkeypatch.setattr(files, "fetch_object", fetch)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "shared"))
    monkeypatch.setenv(PROCESSES_VARIABLE, processes)
    for process in (1, 2):
        monkeypatch.setattr("functions.train.data.shared_downloads.os.getpid", lambda process=process: process)
        with file.shared_path() as path:
            assert path.read_bytes() == b"x,y\n1,2\n"
    assert fetched == ["data/a.csv"] * downloads
    assert isinstance(file, DataFile)
