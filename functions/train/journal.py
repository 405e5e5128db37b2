"""What a run leaves in the store, whether it ends in a version or not: `runs/<run>/`.

recipe.yaml      as run, written first: a store that cannot be written to ends the run before the training
metrics.jsonl    one line per epoch, so far
curves.png       the learning curves
sample.txt       what a language model writes
published.json   the version that came out
folds.json       what each fold of a cross-validation gave, so far
checkpoints/     while it is under way: see `checkpoint`

A run that is started again under its name goes on in its folder, with the recipe that it was started with.
"""

import hashlib
import json
from dataclasses import asdict

from functions.train.checkpoint import Checkpoints
from functions.train.folds import Folds
from functions.train.identity import new_name
from functions.train.loop import Epoch
from functions.train.recipe import Recipe, check, dump, parse
from pilotlight.contracts import Reference
from pilotlight.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from pilotlight.registry import Registry
from pilotlight.storage import ObjectStore


class Journal:
    """The folder of one run."""

    def __init__(self, store: ObjectStore, recipe: Recipe, run: str | None = None) -> None:
        self.run = run or new_name(recipe)
        self._recipe_sha256 = hashlib.sha256(dump(recipe).encode()).hexdigest()
        self._store, self._recipe = store, recipe
        try:
            store.create(self.path("recipe.yaml"), dump(recipe).encode())
        except AlreadyExistsError:
            self._refuse_another()
        self._lines = self._read("metrics.jsonl").splitlines(keepends=True)

    def path(self, name: str) -> str:
        """Where a file of the run is in the store."""
        return f"runs/{self.run}/{name}"

    def epoch(self, epoch: Epoch) -> None:
        """Add an epoch in place of what an earlier life of the run had from there on.

        Objects cannot grow, so the whole file is written anew, a few kilobytes.
        """
        self._lines[epoch.number - 1 :] = [json.dumps(asdict(epoch)) + "\n"]
        self._write("metrics.jsonl", "".join(self._lines).encode())

    @property
    def epochs(self) -> list[Epoch]:
        """The epochs so far."""
        return [Epoch(**json.loads(line)) for line in self._lines]

    def fold(self, folds: Folds) -> None:
        """Note what the folds gave, so far."""
        self._write("folds.json", json.dumps(asdict(folds)).encode())

    @property
    def folds(self) -> Folds | None:
        """What the folds gave, so far."""
        text = self._read("folds.json")
        if not text:
            return None
        said = json.loads(text)
        return Folds(said["metric"], tuple(said["values"]))

    def checkpoints(self, folder: str) -> Checkpoints:
        """The checkpoints of a training of this run."""
        return Checkpoints(self._store, self.path(folder), self._recipe_sha256)

    def curves(self, picture: bytes) -> None:
        """Add the learning curves."""
        self._write("curves.png", picture)

    def sample(self, text: str) -> None:
        """Add what a language model writes."""
        self._write("sample.txt", text.encode())

    def publish(self, reference: Reference) -> None:
        """Note which version came out."""
        self._write("published.json", json.dumps({"reference": str(reference)}).encode())

    @property
    def published(self) -> Reference | None:
        """The version that came out in an earlier life of the run, if one did."""
        if text := self._read("published.json"):
            return Reference.parse(json.loads(text)["reference"])
        return self._committed() if self._lines else None

    def _committed(self) -> Reference | None:
        """The run's version in the registry: it may have been killed between the commit and its note of it."""
        registry, name = Registry(self._store), self._recipe.name
        for version in sorted(registry.versions(name), reverse=True):
            if registry.manifest(name, version).by == self.path("").rstrip("/"):
                return Reference(name, version)
        return None

    def _refuse_another(self) -> None:
        known = check(parse(self._read("recipe.yaml"), "recipe.yaml"), self.path("recipe.yaml"))
        changed = [key for key in Recipe.model_fields if getattr(known, key) != getattr(self._recipe, key)]
        if changed:
            raise InvalidInputError(
                f"The run {self.run!r} was started with another recipe: {', '.join(changed)} differ; "
                "give that recipe again, or another --run."
            )

    def _read(self, name: str) -> str:
        try:
            return self._store.get(self.path(name)).data.decode()
        except NotFoundError:
            return ""

    def _write(self, name: str, data: bytes) -> None:
        self._store.put(self.path(name), data)
