"""What a run leaves in the store, whether it ends in a version or not: `runs/<run>/`.

recipe.yaml     as run, written first: a store that cannot be written to ends the run before the training
metrics.jsonl   one line per epoch, so far
curves.png      the learning curves
"""

import json
import secrets
from dataclasses import asdict
from datetime import UTC, datetime

from functions.train.loop import Epoch
from functions.train.recipe import Recipe, dump
from pilotlight.storage import ObjectStore


class Journal:
    """The folder of one run."""

    def __init__(self, store: ObjectStore, recipe: Recipe) -> None:
        self.run = f"{recipe.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
        self._store = store
        self._lines: list[str] = []
        self._write("recipe.yaml", dump(recipe).encode())

    def epoch(self, epoch: Epoch) -> None:
        """Add an epoch; objects cannot grow, so the whole file is written anew, a few kilobytes."""
        self._lines.append(json.dumps(asdict(epoch)) + "\n")
        self._write("metrics.jsonl", "".join(self._lines).encode())

    def curves(self, picture: bytes) -> None:
        """Add the learning curves."""
        self._write("curves.png", picture)

    def _write(self, name: str, data: bytes) -> None:
        self._store.put(f"runs/{self.run}/{name}", data)
