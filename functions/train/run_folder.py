"""What a run leaves in the store, whether it ends in a version or not: `runs/<run>/`.

recipe.yaml      as run, written first: a store that cannot be written to ends the run before the training
status.json      whether it is under way, paused, finished or failed, and why
data.json        the hash of the data set, how it was shared out, and what was left out of it
factory.py       the source of a model of the user's own
metrics.jsonl    one line per epoch, so far
*.png            the learning curves, and what the served variant does on the test set
sample.txt       what a language model writes
published.json   the version that came out
folds.json       what each fold of a cross-validation gave, so far
checkpoints/     while it is under way: see `checkpoint`

A run that is started again under its name goes on in its folder, with the recipe that it was started with. The
documents that others read are in `pilotlight.contracts.run`.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict

import msgspec

from functions.train.data.dataset import Splits
from functions.train.data.folds import Folds
from functions.train.errors import PausedError
from functions.train.models.custom import FILE
from functions.train.training.checkpoint import Checkpoints
from functions.train.training.epoch import Epoch
from pilotlight.contracts.manifest import Reference, encode
from pilotlight.contracts.run import Published, State, Status
from pilotlight.errors import AlreadyExistsError, InvalidInputError, PilotlightError
from pilotlight.recipes.schema import Recipe, check, differing, dump, parse
from pilotlight.registry.alias_updates import now
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs import run_store


class Journal:
    """The folder of one run."""

    def __init__(self, store: ObjectStore, recipe: Recipe, run: str | None = None) -> None:
        self.run = run or run_store.new_name(recipe.name)
        self._recipe_sha256 = hashlib.sha256(dump(recipe).encode()).hexdigest()
        self._store, self._recipe = store, recipe
        try:
            store.create(self.path("recipe.yaml"), dump(recipe).encode())
        except AlreadyExistsError:
            self._refuse_another()
        self._lines = self._read("metrics.jsonl").splitlines(keepends=True)

    def path(self, name: str) -> str:
        """Where a file of the run is in the store."""
        return run_store.path(self.run, name)

    @contextmanager
    def life(self) -> Iterator[None]:
        """Say that the run is under way inside, and afterwards how this life of it ended."""
        started = time.monotonic()
        before = run_store.document(self._store, self.path("status.json"), Status)
        life = before or Status(state="running", started=now(), at=now(), lives=0)
        life = msgspec.structs.replace(life, state="running", at=now(), lives=life.lives + 1, reason="")
        self._write("status.json", encode(life))

        def end(state: State, reason: str = "") -> None:
            seconds = life.seconds + time.monotonic() - started
            ended = msgspec.structs.replace(life, state=state, at=now(), seconds=seconds, reason=reason)
            self._write("status.json", encode(ended))

        try:
            yield
        except PausedError as exc:
            end("paused", str(exc))
            raise
        except KeyboardInterrupt:
            end("interrupted", "Interrupted; start the same run again, and it goes on from its last checkpoint.")
            raise
        except Exception as exc:
            end("failed", str(exc) if isinstance(exc, PilotlightError) else f"{type(exc).__name__}: {exc}")
            raise
        end("finished")

    def epoch(self, epoch: Epoch, remaining_s: float) -> None:
        """Add an epoch in place of what an earlier life of the run had from there on, with the time that is left.

        Objects cannot grow, so the whole file is written anew, a few kilobytes.
        """
        line = msgspec.json.encode(asdict(epoch) | {"remaining_s": round(remaining_s, 3), "at": now()}).decode()
        self._lines[epoch.number - 1 :] = [line + "\n"]
        self._write("metrics.jsonl", "".join(self._lines).encode())

    @property
    def epochs(self) -> list[Epoch]:
        """The epochs so far."""
        return [msgspec.json.decode(line, type=Epoch) for line in self._lines]

    def data(self, splits: Splits) -> None:
        """Note the data set; `InvalidInputError` when an earlier life of the run had another."""
        sizes = {name: len(getattr(splits, name)) for name in ("train", "validation", "test", "calibration")}
        said = {"sha256": splits.sha256, "examples": sizes, "classes": splits.train.classes}
        said["cleaning"] = msgspec.to_builtins(splits.train.cleaning)
        known = self._read("data.json")
        if known and json.loads(known)["sha256"] != splits.sha256:
            raise InvalidInputError(f"The run {self.run!r} was started on other data; give another --run.")
        self._write("data.json", json.dumps(said).encode())

    def factory(self, source: str) -> None:
        """Note the source of the user's model; `InvalidInputError` when an earlier life of the run had another."""
        if self._read(FILE) not in ("", source):
            raise InvalidInputError(f"The run {self.run!r} was started with another {FILE}; give another --run.")
        self._write(FILE, source.encode())

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

    def pictures(self, drawn: Mapping[str, bytes]) -> None:
        """Add pictures, by their file names."""
        for name, picture in drawn.items():
            self._write(name, picture)

    def sample(self, text: str) -> None:
        """Add what a language model writes."""
        self._write("sample.txt", text.encode())

    def publish(self, reference: Reference) -> None:
        """Note which version came out."""
        self._write("published.json", encode(Published(str(reference))))

    @property
    def published(self) -> Reference | None:
        """The version that came out in an earlier life of the run, if one did."""
        if noted := run_store.document(self._store, self.path("published.json"), Published):
            return Reference.parse(noted.reference)
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
        if changed := differing(known, self._recipe):
            raise InvalidInputError(
                f"The run {self.run!r} was started with another recipe: {', '.join(changed)} differ; "
                "give that recipe again, or another --run."
            )

    def _read(self, name: str) -> str:
        return run_store.text(self._store, self.path(name)) or ""

    def _write(self, name: str, data: bytes) -> None:
        self._store.put(self.path(name), data)
