"""What a version brings beside its graph, a tokenizer for one: bytes until something is made of them, which is kept.

It knows paths and bytes, not what they mean; the steps of `pilotlight.processing` do.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pilotlight.contracts.manifest import Manifest
from pilotlight.errors import NotFoundError
from pilotlight.runtime.model_files import fetched
from pilotlight.storage.object_store import ObjectStore

Made = TypeVar("Made")


class Assets:
    """The assets of one open version, by their paths."""

    def __init__(self, contents: Mapping[str, bytes] | None = None) -> None:
        self._contents = dict(contents or {})
        self._made: dict[str, Any] = {}

    def made(self, path: str, make: Callable[[bytes], Made]) -> Made:
        """What `make` makes of the file at `path`, made once; `NotFoundError` when the version brought no such file."""
        if path not in self._made:
            if path not in self._contents:
                raise NotFoundError(f"The version brought no file {path!r}; it brought {sorted(self._contents)}.")
            self._made[path] = make(self._contents[path])
            del self._contents[path]  # what was made of it takes its place
        found: Made = self._made[path]
        return found


def bring(store: ObjectStore, manifest: Manifest) -> Assets:
    """The assets of a version, each fetched and checked as its graph is; `ModelRefusedError` as there."""
    contents = {}
    for file in manifest.assets:
        with fetched(store, manifest, file) as path:
            contents[file.path] = Path(path).read_bytes()
    return Assets(contents)
