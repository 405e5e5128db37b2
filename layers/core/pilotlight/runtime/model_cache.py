"""Warm memory: the open models of one environment, under a budget in bytes, least recently used first to go.

It knows sizes and order, not where models come from.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pilotlight.contracts.manifest import Manifest
from pilotlight.errors import DoesNotFitError, LoadingError, NotFoundError
from pilotlight.runtime.session import Session

Value = TypeVar("Value")
VersionKey = tuple[str, int]  # name and version


class Assets:
    """The files of one open version beside its graph, by path: bytes until `get_or_parse` makes something of them.

    It does not know what the bytes mean; the steps of `pilotlight.processing` do.
    """

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


@dataclass(frozen=True)
class LoadedModel:
    """A version that is open; `bytes` is what it counts for in the budget."""

    manifest: Manifest
    session: Session
    size_bytes: int
    assets: Assets = field(default_factory=Assets)  # files that pre- and post-processing need, such as a tokenizer

    @property
    def key(self) -> VersionKey:
        """Its place in warm memory."""
        return self.manifest.name, self.manifest.version


class ModelCache:
    """Open models by name and version, and room for those that are being opened.

    Safe for threads: new versions are opened beside the requests. A model that is closed here lives on until the
    request that runs it has ended, since that holds it too.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes  # bytes
        self._models: OrderedDict[VersionKey, LoadedModel] = OrderedDict()
        self._reserved: dict[VersionKey, int] = {}  # bytes reserved for models that are being opened
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """What the open models, and those being opened, count for together."""
        return sum(model.size_bytes for model in self._models.values()) + sum(self._reserved.values())

    def keys(self) -> list[VersionKey]:
        """The open versions, the one to go first in front."""
        with self._lock:
            return list(self._models)

    def get_sizes(self) -> dict[VersionKey, int]:
        """What each open version counts for, in bytes."""
        return {key: model.size_bytes for key, model in self._models.items()}

    def get(self, key: VersionKey) -> LoadedModel | None:
        """The open model, which becomes the last to go, or None."""
        with self._lock:
            model = self._models.get(key)
            if model is not None:
                self._models.move_to_end(key)
            return model

    def reserve_room(self, manifest: Manifest) -> None:
        """Close models until this one fits, and hold the room until `put` or `release_room`.

        `DoesNotFitError` with the numbers, and nothing closed, if it never can; `LoadingError` while others that are
        being opened hold the room.
        """
        key, size = (manifest.name, manifest.version), manifest.served_bytes
        self.check_fits(manifest)
        with self._lock:
            reserved = sum(self._reserved.values())
            if reserved + size > self.budget_bytes:
                raise LoadingError(
                    f"{manifest.name}:{manifest.version} takes {size:,} bytes, and {reserved:,} of "
                    f"{self.budget_bytes:,} are "
                    "held for models that are being opened; try again.",
                    retry_after=1,
                )
            while self._models and self.used_bytes + size > self.budget_bytes:
                self._models.popitem(last=False)
            self._reserved[key] = size

    def check_fits(self, manifest: Manifest) -> None:
        """Refuse a model that is larger than all the memory that models may take."""
        size = manifest.served_bytes
        if size > self.budget_bytes:
            raise DoesNotFitError(
                f"{manifest.name}:{manifest.version} takes {size:,} bytes and models may take {self.budget_bytes:,}, "
                "half of "
                f"the function's {2 * self.budget_bytes / 1e6:,.0f} MB; raise MemorySize in template.yaml (parameter "
                f"ModelMemory) to {-(-2 * size // 1_000_000):,} MB or more."
            )

    def can_fit_beside(self, manifest: Manifest, key: VersionKey) -> bool:
        """Whether a model can be opened while the open version `key` stays."""
        with self._lock:
            active_bytes = self._models[key].size_bytes if key in self._models else 0
            return manifest.served_bytes + active_bytes + sum(self._reserved.values()) <= self.budget_bytes

    def put(self, model: LoadedModel) -> None:
        """Keep an open model; room was made before it was opened."""
        with self._lock:
            self._reserved.pop(model.key, None)
            self._models[model.key] = model
            self._models.move_to_end(model.key)

    def release_room(self, key: VersionKey) -> None:
        """Free the room that was held for a model which did not open."""
        with self._lock:
            self._reserved.pop(key, None)

    def evict(self, key: VersionKey) -> None:
        """Let a model go; a request that runs it keeps it until it has ended."""
        with self._lock:
            self._models.pop(key, None)
