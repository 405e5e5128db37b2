"""Fetch and check a version's files, and provide them under a path that onnxruntime can open.

This module depends on the manifest's records of the files, not on the formats of their bytes.
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

from pilotlight.contracts.manifest import CompressedFile, Manifest, ManifestFile
from pilotlight.errors import DoesNotFitError, ModelRefusedError, NotFoundError
from pilotlight.registry.registry import version_path
from pilotlight.runtime.fetch_progress import FETCHES, FetchProgress
from pilotlight.runtime.malloc import reuse_freed_memory
from pilotlight.storage.download import download_object, hash_chunks
from pilotlight.storage.object_store import ObjectStore

PINNED_ONNXRUNTIME = "1.32.0"  # as pinned; reading it from the package would import onnxruntime before the fetch begins
RUNTIME = f"onnxruntime {PINNED_ONNXRUNTIME} {os.uname().machine}"  # the build that an optimized graph is for
FOLDER_PREFIX = "pilotlight-model-"
MISSING = "is missing from the store"
LEFTOVER_SECONDS = 60.0  # s; a younger folder may belong to a process that has not locked it yet


@dataclass(frozen=True)
class ModelFiles:
    """Checked files of a version where onnxruntime can open them: the path of the graph, until `close`."""

    path: str
    close: Callable[[], None]


@contextmanager
def open_model_files(store: ObjectStore, manifest: Manifest, *files: ManifestFile) -> Iterator[str]:
    """Provide a path of the served graph, with its weights beside it, while the context lasts.

    With `files`, the path is that of the first, with the others beside it. Files that were prefetched are not fetched
    again. Raises `ModelRefusedError` if a file is missing or differs in size or sha256 from the manifest.
    """
    prefetched = None if files else store.take_prefetched_files(manifest.name, manifest.version)
    model_files = prefetched or fetch_model_files(store, manifest, *files)
    try:
        yield model_files.path
    finally:
        model_files.close()


def fetch_model_files(store: ObjectStore, manifest: Manifest, *selected: ManifestFile) -> ModelFiles:
    """Fetch the served or selected files as `open_model_files` does; the caller closes them.

    A single graph is kept in memory if the system has memfd (Linux), else in a temporary file. Weights need a folder:
    onnxruntime opens them by their names in the graph, and refuses names that lead out of the graph's folder.
    """
    files = selected or manifest.get_serving_files(RUNTIME)
    total_bytes = sum(file.bytes for file in files)
    with ExitStack() as stack:
        progress = FetchProgress(total_bytes)
        if not selected:
            stack.enter_context(FETCHES.track((manifest.name, manifest.version), progress))
        if len(files) == 1:
            target = stack.enter_context(open_memory_file())
            copy_model_file(store, manifest, files[0], target, progress)
            return ModelFiles(get_reopen_path(target), stack.pop_all().close)
        root = Path(tempfile.gettempdir())
        check_disk_space(manifest, root, total_bytes)
        folder = stack.enter_context(create_private_folder(root))
        for file in files:
            target_path = folder / file.path
            target_path.parent.mkdir(parents=True, exist_ok=True)
            with target_path.open("w+b") as target:
                copy_model_file(store, manifest, file, target, progress)
        return ModelFiles(str(folder / files[0].path), stack.pop_all().close)


def copy_model_file(
    store: ObjectStore, manifest: Manifest, file: ManifestFile, target: BinaryIO, progress: FetchProgress
) -> None:
    """Copy a file of a version into an open file, or raise `ModelRefusedError`."""
    path = version_path(manifest.name, manifest.version, file.path)
    try:
        with reuse_freed_memory():
            compressed = find_compressed_file(manifest, file)
            size, sha256 = download_object(store, path, target, file.bytes, compressed, progress.add)
    except NotFoundError as exc:
        raise build_refused_error(manifest, file, MISSING) from exc
    if mismatch := describe_mismatch(file, size, sha256):
        raise build_refused_error(manifest, file, mismatch)


def find_mismatch(store: ObjectStore, manifest: Manifest, file: ManifestFile) -> str:
    """Read a stored file and describe how it differs from the manifest's record; empty if it does not."""
    try:
        size, sha256 = hash_chunks(store.stream(version_path(manifest.name, manifest.version, file.path)))
    except NotFoundError:
        return MISSING
    return describe_mismatch(file, size, sha256)


def describe_mismatch(file: ManifestFile, size: int, sha256: str) -> str:
    """Describe how a size and a sha256 differ from a file's record; empty if they do not."""
    if (size, sha256) == (file.bytes, file.sha256):
        return ""
    return f"holds {size} bytes with sha256 {sha256}, not the manifest's {file.bytes} bytes with {file.sha256}"


def find_compressed_file(manifest: Manifest, file: ManifestFile) -> CompressedFile | None:
    """Find the compressed form of a file, if it has one, with its key in the store as the path."""
    compressed = manifest.find_compressed_file(file)
    return (
        replace(compressed, path=version_path(manifest.name, manifest.version, compressed.path)) if compressed else None
    )


def check_disk_space(manifest: Manifest, root: Path, needed_bytes: int) -> None:
    """Raise `DoesNotFitError` with the numbers, before the fetch, if the disk cannot hold the files."""
    free_bytes = shutil.disk_usage(root).free
    if needed_bytes > free_bytes:
        raise DoesNotFitError(
            f"{manifest.name}:{manifest.version} takes {needed_bytes:,} bytes of {root} and {free_bytes:,} are free; "
            "raise "
            "EphemeralStorage in template.yaml (parameter ModelDisk)."
        )


def open_memory_file() -> BinaryIO:
    """Open a new file in memory that disappears when it is closed; without memfd, on disk."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("model", os.MFD_CLOEXEC), "w+b")
    return tempfile.NamedTemporaryFile(suffix=".onnx")


def get_reopen_path(file: BinaryIO) -> str:
    """Return the path by which this process can open the file again."""
    return f"/proc/self/fd/{file.fileno()}" if sys.platform == "linux" else str(file.name)


@contextmanager
def create_private_folder(root: Path) -> Iterator[Path]:
    """Create a locked folder in `root` while the context lasts; remove folders that killed processes left.

    Lambda does not clear /tmp after a crash, so repeated crashes would fill it.
    """
    for leftover in root.glob(f"{FOLDER_PREFIX}*"):
        remove_stale_folder(leftover)
    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, dir=root) as name, lock_folder(Path(name)):
        yield Path(name)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the kernel releases when the process dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def remove_stale_folder(folder: Path) -> None:
    """Remove a folder that no running process has locked."""
    with suppress(OSError):  # another process has already removed it, or still uses it
        if time.time() - folder.stat().st_mtime > LEFTOVER_SECONDS:
            with lock_folder(folder):
                shutil.rmtree(folder)


def build_refused_error(manifest: Manifest, file: ManifestFile, reason: str) -> ModelRefusedError:
    """Build the error for a file that differs from its manifest."""
    return ModelRefusedError(
        f"{manifest.name}:{manifest.version} is refused: {file.path} {reason}; publish the model again as a new "
        "version."
    )


def read_asset(store: ObjectStore, manifest: Manifest, file: ManifestFile) -> bytes:
    """Fetch and check a file of a version that is read whole."""
    with open_model_files(store, manifest, file) as path:
        return Path(path).read_bytes()
