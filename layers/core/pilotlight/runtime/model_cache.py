"""Warm memory: the open models of one environment, under a budget in bytes, least recently used first to go.

It knows sizes and order, not where models come from.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from pilotlight.contracts.manifest import Manifest
from pilotlight.errors import DoesNotFitError, LoadingError
from pilotlight.runtime.assets import Assets
from pilotlight.runtime.session import Session

Key = tuple[str, int]  # name and version


@dataclass(frozen=True)
class WarmModel:
    """A version that is open; `bytes` is what it counts for in the budget."""

    manifest: Manifest
    session: Session
    bytes: int
    assets: Assets = field(default_factory=Assets)  # files that pre- and post-processing need, such as a tokenizer

    @property
    def key(self) -> Key:
        """Its place in warm memory."""
        return self.manifest.name, self.manifest.version


class WarmModels:
    """Open models by name and version, and room for those that are being opened.

    Safe for threads: new versions are opened beside the requests. A model that is closed here lives on until the
    request that runs it has ended, since that holds it too.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget  # bytes
        self._models: OrderedDict[Key, WarmModel] = OrderedDict()
        self._coming: dict[Key, int] = {}  # bytes reserved for models that are being opened
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """What the open models, and those being opened, count for together."""
        return sum(model.bytes for model in self._models.values()) + sum(self._coming.values())

    def keys(self) -> list[Key]:
        """The open versions, the one to go first in front."""
        with self._lock:
            return list(self._models)

    def sizes(self) -> dict[Key, int]:
        """What each open version counts for, in bytes."""
        return {key: model.bytes for key, model in self._models.items()}

    def get(self, key: Key) -> WarmModel | None:
        """The open model, which becomes the last to go, or None."""
        with self._lock:
            model = self._models.get(key)
            if model is not None:
                self._models.move_to_end(key)
            return model

    def make_room(self, manifest: Manifest) -> None:
        """Close models until this one fits, and hold the room until `put` or `give_up`.

        `DoesNotFitError` with the numbers, and nothing closed, if it never can; `LoadingError` while others that are
        being opened hold the room.
        """
        key, size = (manifest.name, manifest.version), manifest.bytes
        self.check(manifest)
        with self._lock:
            coming = sum(self._coming.values())
            if coming + size > self.budget:
                raise LoadingError(
                    f"{manifest.name}:{manifest.version} takes {size:,} bytes, and {coming:,} of {self.budget:,} are "
                    "held for models that are being opened; try again.",
                    retry_after=1,
                )
            while self._models and self.bytes + size > self.budget:
                self._models.popitem(last=False)
            self._coming[key] = size

    def check(self, manifest: Manifest) -> None:
        """Refuse a model that is larger than all the memory that models may take."""
        size = manifest.bytes
        if size > self.budget:
            raise DoesNotFitError(
                f"{manifest.name}:{manifest.version} takes {size:,} bytes and models may take {self.budget:,}, half of "
                f"the function's {2 * self.budget / 1e6:,.0f} MB; raise MemorySize in template.yaml (parameter "
                f"ModelMemory) to {-(-2 * size // 1_000_000):,} MB or more."
            )

    def fits_beside(self, manifest: Manifest, key: Key) -> bool:
        """Whether a model can be opened while the open version `key` stays."""
        with self._lock:
            there = self._models[key].bytes if key in self._models else 0
            return manifest.bytes + there + sum(self._coming.values()) <= self.budget

    def put(self, model: WarmModel) -> None:
        """Keep an open model; room was made before it was opened."""
        with self._lock:
            self._coming.pop(model.key, None)
            self._models[model.key] = model
            self._models.move_to_end(model.key)

    def give_up(self, key: Key) -> None:
        """Free the room that was held for a model which did not open."""
        with self._lock:
            self._coming.pop(key, None)

    def close(self, key: Key) -> None:
        """Let a model go; a request that runs it keeps it until it has ended."""
        with self._lock:
            self._models.pop(key, None)
