"""Warm memory: the open models of one environment, under a budget in bytes, least recently used first to go.

It knows sizes and order, not where models come from.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from pilotlight.contracts import Manifest
from pilotlight.errors import DoesNotFitError
from pilotlight.runtime.assets import Assets
from pilotlight.runtime.session import Session

Key = tuple[str, int]  # name and version


@dataclass(frozen=True)
class WarmModel:
    """A version that is open; `bytes` is what it counts for in the budget."""

    manifest: Manifest
    session: Session
    bytes: int
    assets: Assets = field(default_factory=Assets)  # what the steps around the graph need

    @property
    def key(self) -> Key:
        """Its place in warm memory."""
        return self.manifest.name, self.manifest.version


class WarmModels:
    """Open models by name and version. Not for several threads: a Lambda environment takes one request at a time."""

    def __init__(self, budget: int) -> None:
        self.budget = budget  # bytes
        self._models: OrderedDict[Key, WarmModel] = OrderedDict()

    @property
    def bytes(self) -> int:
        """What the open models count for together."""
        return sum(model.bytes for model in self._models.values())

    def keys(self) -> list[Key]:
        """The open versions, the one to go first in front."""
        return list(self._models)

    def sizes(self) -> dict[Key, int]:
        """What each open version counts for, in bytes."""
        return {key: model.bytes for key, model in self._models.items()}

    def get(self, key: Key) -> WarmModel | None:
        """The open model, which becomes the last to go, or None."""
        model = self._models.get(key)
        if model is not None:
            self._models.move_to_end(key)
        return model

    def make_room(self, manifest: Manifest) -> None:
        """Close models until this one fits; `DoesNotFitError` with the numbers, and nothing closed, if it never can."""
        size = manifest.bytes
        if size > self.budget:
            raise DoesNotFitError(
                f"{manifest.name}:{manifest.version} takes {size:,} bytes and models may take {self.budget:,}, half of "
                "the function's memory; raise MemorySize in template.yaml (parameter ModelMemory)."
            )
        while self._models and self.bytes + size > self.budget:
            self._models.popitem(last=False)

    def put(self, model: WarmModel) -> None:
        """Keep an open model; room was made before it was opened."""
        self._models[model.key] = model
        self._models.move_to_end(model.key)
