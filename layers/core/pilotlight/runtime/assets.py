"""What a version brings beside its graph, a tokenizer for one: bytes until something is made of them, which is kept.

It knows paths and bytes, not what they mean; the steps of `pilotlight.processing` do.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pilotlight.contracts.manifest import Manifest
from pilotlight.errors import NotFoundError
from pilotlight.runtime.model_files import open_model_files
from pilotlight.storage.object_store import ObjectStore

Value = TypeVar("Value")


class Assets:
    """The assets of one open version, by their paths."""

    def __init__(self, contents: Mapping[str, bytes] | None = None) -> None:
        self._contents = dict(contents or {})
        self._parsed: dict[str, Any] = {}

    def get_or_parse(self, path: str, parse: Callable[[bytes], Value]) -> Value:
        """What `parse` makes of the file at `path`, once; `NotFoundError` when the version brought no such file."""
        if path not in self._parsed:
            if path not in self._contents:
                raise NotFoundError(f"The version brought no file {path!r}; it brought {sorted(self._contents)}.")
            self._parsed[path] = parse(self._contents[path])
            del self._contents[path]  # what was made of it takes its place
        value: Value = self._parsed[path]
        return value


def load_assets(store: ObjectStore, manifest: Manifest) -> Assets:
    """The assets of a version, each fetched and checked as its graph is; `ModelRefusedError` as there."""
    contents = {}
    for file in manifest.asset_files:
        with open_model_files(store, manifest, file) as path:
            contents[file.path] = Path(path).read_bytes()
    return Assets(contents)
