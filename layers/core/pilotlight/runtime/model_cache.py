"""Cache the open models of one environment under a budget in bytes; the least recently used is evicted first.

This module depends on sizes and order, not on where models come from.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from pilotlight.contracts.manifest import Manifest
from pilotlight.errors import DoesNotFitError, LoadingError, NotFoundError
from pilotlight.runtime.session import Session

if TYPE_CHECKING:
    from pilotlight.generation.language_model import LanguageModel

Value = TypeVar("Value")
# Memory of the smallest open version: onnxruntime's session takes 75 kB, its manifest and python's objects the rest.
SESSION_OVERHEAD_BYTES = 128_000
MAX_GROWTH_FACTOR, MAX_GROWTH_BYTES = 3, 2_000_000  # of an open version: times its files, and bytes for its graph
VersionKey = tuple[str, int]  # name and version


class Assets:
    """The files of one open version beside its graph, by path: bytes until `get_or_parse` parses them.

    The steps in `pilotlight.processing` know the formats of the bytes.
    """

    def __init__(self, contents: Mapping[str, bytes] | None = None) -> None:
        self._contents = dict(contents or {})
        self._parsed: dict[str, Any] = {}

    def get_or_parse(self, path: str, parse: Callable[[bytes], Value]) -> Value:
        """Return the file at `path` as parsed once by `parse`; `NotFoundError` if the version has no such file."""
        if path not in self._parsed:
            if path not in self._contents:
                raise NotFoundError(f"The version brought no file {path!r}; it brought {sorted(self._contents)}.")
            self._parsed[path] = parse(self._contents[path])
            del self._contents[path]  # only the parsed form is kept
        value: Value = self._parsed[path]
        return value


@dataclass(frozen=True)
class LoadedModel:
    """An open version; `size_bytes` is what it counts for in the budget."""

    manifest: Manifest
    session: Session
    size_bytes: int
    assets: Assets = field(default_factory=Assets)  # files that pre- and post-processing need, such as a tokenizer
    language_model: "LanguageModel | None" = None  # of a version that generates text

    @property
    def key(self) -> VersionKey:
        """Its key in the cache."""
        return self.manifest.name, self.manifest.version


class ModelCache:
    """Open models by name and version, and memory reserved for those that are being opened.

    Thread-safe: new versions are opened beside the requests. A model that is evicted stays in memory until the request
    that runs it has ended, since that refers to it too.
    """

    def __init__(self, budget_bytes: int, overhead_bytes: int = 0) -> None:
        """Create a cache; a version counts for its files and `overhead_bytes`, or for its files alone if that is 0."""
        self.budget_bytes = budget_bytes
        self._overhead_bytes = overhead_bytes
        self._models: OrderedDict[VersionKey, LoadedModel] = OrderedDict()
        self._reserved: dict[VersionKey, int] = {}  # bytes reserved for models that are being opened
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """The bytes of the open models and of those being opened together."""
        return sum(model.size_bytes for model in self._models.values()) + sum(self._reserved.values())

    def keys(self) -> list[VersionKey]:
        """List the open versions, the next to be evicted first."""
        with self._lock:
            return list(self._models)

    def get_sizes(self) -> dict[VersionKey, int]:
        """Return the size of each open version, in bytes."""
        return {key: model.size_bytes for key, model in self._models.items()}

    def get(self, key: VersionKey) -> LoadedModel | None:
        """Return the open model and mark it as the most recently used; None if it is not open."""
        with self._lock:
            model = self._models.get(key)
            if model is not None:
                self._models.move_to_end(key)
            return model

    def estimate_size(self, manifest: Manifest) -> int:
        """Estimate the memory of an open version: as measured at publish, and not less than its files.

        A version whose files fit into the budget may have all of it, since it may be open alone.
        """
        cost = manifest.request_cost or manifest.generation_cost
        size = max(manifest.served_bytes + self._overhead_bytes, cost.session_bytes if cost is not None else 0)
        return size if manifest.served_bytes > self.budget_bytes else min(size, self.budget_bytes)

    def compute_size(self, manifest: Manifest, growth: int) -> int:
        """Compute what an open version counts for: the estimate, or `growth`, what was allocated meanwhile, if larger.

        Requests that ran meanwhile have allocated too, so what no session of these files takes is not believed.
        """
        estimate = self.estimate_size(manifest)
        plausible = MAX_GROWTH_FACTOR * manifest.served_bytes + MAX_GROWTH_BYTES
        if not self._overhead_bytes or growth > plausible:
            return estimate
        return max(estimate, min(growth, self.budget_bytes))

    def reserve_room(self, manifest: Manifest) -> None:
        """Evict models until this one fits, and reserve its memory until `put` or `release_room`.

        Raises `DoesNotFitError` with the numbers, and evicts nothing, if it can never fit; `LoadingError` while models
        that are being opened have reserved the memory.
        """
        key, size = (manifest.name, manifest.version), self.estimate_size(manifest)
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
        """Refuse a model that is larger than the whole budget."""
        size = manifest.served_bytes
        if size > self.budget_bytes:
            raise DoesNotFitError(
                f"{manifest.name}:{manifest.version} takes {size:,} bytes and models may take {self.budget_bytes:,}, "
                "half of "
                f"the function's {2 * self.budget_bytes / 1e6:,.0f} MB; raise MemorySize in template.yaml (parameter "
                f"ModelMemory) to {-(-2 * size // 1_000_000):,} MB or more."
            )

    def can_fit_beside(self, manifest: Manifest, key: VersionKey) -> bool:
        """Return whether a model can be opened while the open version `key` stays."""
        with self._lock:
            active_bytes = self._models[key].size_bytes if key in self._models else 0
            return self.estimate_size(manifest) + active_bytes + sum(self._reserved.values()) <= self.budget_bytes

    def put(self, model: LoadedModel) -> None:
        """Add an open model, whose memory was reserved before it was opened; evict others if it takes more."""
        with self._lock:
            self._reserved.pop(model.key, None)
            self._models[model.key] = model
            self._models.move_to_end(model.key)
            while len(self._models) > 1 and self.used_bytes > self.budget_bytes:
                self._models.popitem(last=False)

    def release_room(self, key: VersionKey) -> None:
        """Release the memory that was reserved for a model which did not open."""
        with self._lock:
            self._reserved.pop(key, None)

    def evict(self, key: VersionKey) -> None:
        """Evict a model; a request that runs it keeps it in memory until it has ended."""
        with self._lock:
            self._models.pop(key, None)
