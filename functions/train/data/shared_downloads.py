"""Files of a store that several processes of a machine read: the first to need one downloads it, the others link it.

Processes that train together read the same shards at about the same time. A copy is kept until each of them has taken
it, and only a few are: a process that is far ahead, or behind, downloads by itself.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

FOLDER_VARIABLE = "PILOTLIGHT_SHARED_DOWNLOADS"  # set by the launcher for the processes of its machine
PROCESSES_VARIABLE = "LOCAL_WORLD_SIZE"  # set by torchrun
MAX_COPIES = 4  # that wait for other processes


@dataclass(frozen=True)
class SharedDownloads:
    """The copies in a folder that the processes of a machine have in common."""

    folder: Path
    processes: int
    process: str  # the name of this one, which takes each copy once

    @classmethod
    def find(cls, environment: Mapping[str, str] = os.environ) -> "SharedDownloads | None":
        """Find the folder of this training; None where a process trains alone, or without the launcher."""
        folder, processes = environment.get(FOLDER_VARIABLE), int(environment.get(PROCESSES_VARIABLE, "1"))
        return cls(Path(folder), processes, str(os.getpid())) if folder and processes > 1 else None

    def fetch(self, key: str, path: Path, download: Callable[[Path], None]) -> None:
        """Provide the object `key` at `path`, which must not exist yet; what `download` raises passes.

        A process that asks again, in a later pass or since the copy was not what it should be, gets a new one.
        """
        name = sha256(key.encode()).hexdigest()
        copy, mark = self.folder / name, self.folder / f"{name}.{self.process}"
        with self._lock(name):
            if mark.exists():
                self._discard(name)
            if not link_file(copy, path):
                download(path)
                link_file(path, copy)
                self._discard_old_copies()
            mark.touch()
            if len(self._list_marks(name)) >= self.processes:
                self._discard(name)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Let one process at a time fetch or take a file; the lock ends with the process that holds it."""
        self.folder.mkdir(exist_ok=True)
        with (self.folder / f".{name}").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _list_marks(self, name: str) -> list[Path]:
        return list(self.folder.glob(f"{name}.*"))

    def _discard(self, name: str) -> None:
        for path in (self.folder / name, *self._list_marks(name)):
            path.unlink(missing_ok=True)

    def _discard_old_copies(self) -> None:
        copies = [path for path in self.folder.iterdir() if "." not in path.name]
        for path in sorted(copies, key=read_age)[:-MAX_COPIES]:
            path.unlink(missing_ok=True)


def link_file(source: Path, target: Path) -> bool:
    """Link a file under another name; return whether there was one, and a file system that can."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def read_age(path: Path) -> float:
    """Read when a file was written, in seconds; 0 if another process has removed it."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
