"""A version's files, from the store to a path that onnxruntime can open, checked on the way.

It knows the manifest's records of the files, and nothing of what the bytes mean.
"""

import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from msgspec.structs import replace

from pilotlight.contracts.manifest import File, Manifest, Packed
from pilotlight.errors import DoesNotFitError, ModelRefusedError, NotFoundError
from pilotlight.registry.registry import version_path
from pilotlight.runtime.malloc import keeping
from pilotlight.runtime.prefetched_store import ReadAhead
from pilotlight.storage.download import download, measured
from pilotlight.storage.object_store import ObjectStore

ONNXRUNTIME = "1.32.0"  # as pinned: to ask the package itself, it would have to be imported before the fetch begins
RUNTIME = f"onnxruntime {ONNXRUNTIME} {os.uname().machine}"  # what a prepared graph is for
FOLDER = "pilotlight-model-"
MISSING = "is missing from the store"
LEFTOVER_SECONDS = 60.0  # a younger folder may belong to a process that has not locked it yet


@dataclass(frozen=True)
class Laid:
    """Checked files of a version where onnxruntime can open them: the path of the graph, until `close`."""

    path: str
    close: Callable[[], None]


@contextmanager
def fetched(store: ObjectStore, manifest: Manifest, *files: File) -> Iterator[str]:
    """A path under which the served graph can be opened, its weights beside it, while the context lasts.

    With `files`, the first of those, the others beside it.

    Raises `ModelRefusedError` before anybody can open them when files are missing, or differ in size or sha256 from
    the manifest. What was read ahead is not fetched again.
    """
    wanted = manifest.name, manifest.version
    early = store.taken(*wanted) if isinstance(store, ReadAhead) and not files else None
    laid = early or fetch(store, manifest, *files)
    try:
        yield laid.path
    finally:
        laid.close()


def fetch(store: ObjectStore, manifest: Manifest, *chosen: File) -> Laid:
    """The served or chosen files as `fetched` gives them; to be closed by the caller.

    A graph alone lies in memory where the system has memfd (Linux), else in a temporary file. Weights need a folder:
    onnxruntime opens them by the name that the graph knows, and refuses names that lead out of the graph's folder.
    """
    files = chosen or manifest.serving(RUNTIME)
    with ExitStack() as stack:
        if len(files) == 1:
            target = stack.enter_context(memory_file())
            copy(store, manifest, files[0], target)
            return Laid(path_of(target), stack.pop_all().close)
        root = Path(tempfile.gettempdir())
        check_room(manifest, root, sum(file.bytes for file in files))
        folder = stack.enter_context(private_folder(root))
        for file in files:
            place = folder / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("w+b") as target:
                copy(store, manifest, file, target)
        return Laid(str(folder / files[0].path), stack.pop_all().close)


def copy(store: ObjectStore, manifest: Manifest, file: File, target: BinaryIO) -> None:
    """Copy a file of a version into an open file, or raise `ModelRefusedError`."""
    path = version_path(manifest.name, manifest.version, file.path)
    try:
        with keeping():
            size, sha256 = download(store, path, target, file.bytes, packed(manifest, file))
    except NotFoundError as exc:
        raise refused(manifest, file, MISSING) from exc
    if why := difference(file, size, sha256):
        raise refused(manifest, file, why)


def unlike(store: ObjectStore, manifest: Manifest, file: File) -> str:
    """How a stored file, read through without keeping it, differs from the manifest's record; empty if it does not."""
    try:
        size, sha256 = measured(store.stream(version_path(manifest.name, manifest.version, file.path)))
    except NotFoundError:
        return MISSING
    return difference(file, size, sha256)


def difference(file: File, size: int, sha256: str) -> str:
    """How what was found differs from a file's record; empty if it does not."""
    if (size, sha256) == (file.bytes, file.sha256):
        return ""
    return f"holds {size} bytes with sha256 {sha256}, not the manifest's {file.bytes} bytes with {file.sha256}"


def packed(manifest: Manifest, file: File) -> Packed | None:
    """The other form of a file, if it has one, under its key in the store."""
    found = manifest.packed(file)
    return replace(found, path=version_path(manifest.name, manifest.version, found.path)) if found else None


def check_room(manifest: Manifest, root: Path, needed: int) -> None:
    """Refuse with the numbers what the disk cannot hold, `DoesNotFitError`, before it is fetched."""
    free = shutil.disk_usage(root).free
    if needed > free:
        raise DoesNotFitError(
            f"{manifest.name}:{manifest.version} takes {needed:,} bytes of {root} and {free:,} are free; raise "
            "EphemeralStorage in template.yaml (parameter ModelDisk)."
        )


def memory_file() -> BinaryIO:
    """A new file that lives in memory and goes away when it is closed; on disk where there is no memfd."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("model", os.MFD_CLOEXEC), "w+b")
    return tempfile.NamedTemporaryFile(suffix=".onnx")


def path_of(file: BinaryIO) -> str:
    """The path by which this process can open the file again."""
    return f"/proc/self/fd/{file.fileno()}" if sys.platform == "linux" else str(file.name)


@contextmanager
def private_folder(root: Path) -> Iterator[Path]:
    """A new folder in `root` for as long as the context lasts, told by its lock from those that killed processes left.

    Lambda does not clear /tmp after a crash: without this, some crashes would fill it.
    """
    for leftover in root.glob(f"{FOLDER}*"):
        remove_if_left(leftover)
    with tempfile.TemporaryDirectory(prefix=FOLDER, dir=root) as name, locked(Path(name)):
        yield Path(name)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel lets go of it when the process dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def remove_if_left(folder: Path) -> None:
    """Remove a folder that no living process holds."""
    with suppress(OSError):  # another process has removed it already, or still uses it
        if time.time() - folder.stat().st_mtime > LEFTOVER_SECONDS:
            with locked(folder):
                shutil.rmtree(folder)


def refused(manifest: Manifest, file: File, why: str) -> ModelRefusedError:
    """The error for a file that is not what its manifest says."""
    return ModelRefusedError(
        f"{manifest.name}:{manifest.version} is refused: {file.path} {why}; publish the model again as a new version."
    )
