"""A version's file, from the store to a path that onnxruntime can open, checked on the way.

It knows the manifest's record of the file, and nothing of what the bytes mean.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from pilotlight.contracts import File, Manifest
from pilotlight.errors import ModelRefusedError, NotFoundError
from pilotlight.registry import version_path
from pilotlight.storage import ObjectStore, download


@contextmanager
def fetched(store: ObjectStore, manifest: Manifest, file: File) -> Iterator[str]:
    """A path under which the file can be opened while the context lasts.

    The bytes lie in memory where the system has memfd (Linux), else in a temporary file. Raises `ModelRefusedError`
    before anybody can open them when they are missing, or differ in size or sha256 from the manifest.
    """
    with memory_file() as target:
        try:
            size, sha256 = download(store, version_path(manifest.name, manifest.version, file.path), target, file.bytes)
        except NotFoundError as exc:
            raise refused(manifest, file, "is missing from the store") from exc
        if (size, sha256) != (file.bytes, file.sha256):
            found = f"{size} bytes with sha256 {sha256}"
            raise refused(manifest, file, f"holds {found}, not the manifest's {file.bytes} bytes with {file.sha256}")
        target.flush()
        yield path_of(target)


def memory_file() -> BinaryIO:
    """A new file that lives in memory and goes away when it is closed; on disk where there is no memfd."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("model", os.MFD_CLOEXEC), "w+b")
    return tempfile.NamedTemporaryFile(suffix=".onnx")


def path_of(file: BinaryIO) -> str:
    """The path by which this process can open the file again."""
    return f"/proc/self/fd/{file.fileno()}" if sys.platform == "linux" else str(file.name)


def refused(manifest: Manifest, file: File, why: str) -> ModelRefusedError:
    """The error for a file that is not what its manifest says."""
    return ModelRefusedError(
        f"{manifest.name}:{manifest.version} is refused: {file.path} {why}; publish the model again as a new version."
    )
