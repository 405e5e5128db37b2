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

from functions.train.data.folds import FoldScores
from functions.train.data.split import Splits
from functions.train.errors import PausedError
from functions.train.models.custom import FACTORY_FILE
from functions.train.training.checkpoint import CheckpointStore
from functions.train.training.epoch import Epoch
from pilotlight.contracts.codec import encode_document
from pilotlight.contracts.names import ModelReference
from pilotlight.contracts.run import PublishedVersion, RunState, RunStatus
from pilotlight.errors import AlreadyExistsError, InvalidInputError, PilotlightError
from pilotlight.recipes.schema import Recipe, dump_recipe, find_differing_keys, parse_yaml, validate_recipe
from pilotlight.registry.alias_updates import utc_now
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs import run_store


class RunFolder:
    """The folder of one run."""

    def __init__(self, store: ObjectStore, recipe: Recipe, run_name: str | None = None) -> None:
        self.run_name = run_name or run_store.generate_run_name(recipe.name)
        self._recipe_sha256 = hashlib.sha256(dump_recipe(recipe).encode()).hexdigest()
        self._store, self._recipe = store, recipe
        try:
            store.create(self.path("recipe.yaml"), dump_recipe(recipe).encode())
        except AlreadyExistsError:
            self._refuse_other_recipe()
        self._metric_lines = self._read("metrics.jsonl").splitlines(keepends=True)

    def path(self, name: str) -> str:
        """Where a file of the run is in the store."""
        return run_store.run_path(self.run_name, name)

    @contextmanager
    def track_status(self) -> Iterator[None]:
        """Say that the run is under way inside, and afterwards how this life of it ended."""
        started = time.monotonic()
        earlier = run_store.read_document_or_none(self._store, self.path("status.json"), RunStatus)
        status = earlier or RunStatus(state="running", started=utc_now(), at=utc_now(), lives=0)
        status = msgspec.structs.replace(status, state="running", at=utc_now(), lives=status.lives + 1, reason="")
        self._write("status.json", encode_document(status))

        def end(state: RunState, reason: str = "") -> None:
            seconds = status.seconds + time.monotonic() - started
            ended = msgspec.structs.replace(status, state=state, at=utc_now(), seconds=seconds, reason=reason)
            self._write("status.json", encode_document(ended))

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

    def record_epoch(self, epoch: Epoch, remaining_s: float) -> None:
        """Add an epoch in place of what an earlier life of the run had from there on, with the time that is left.

        Objects cannot grow, so the whole file is written anew, a few kilobytes.
        """
        line = msgspec.json.encode(asdict(epoch) | {"remaining_s": round(remaining_s, 3), "at": utc_now()}).decode()
        self._metric_lines[epoch.number - 1 :] = [line + "\n"]
        self._write("metrics.jsonl", "".join(self._metric_lines).encode())

    @property
    def epochs(self) -> list[Epoch]:
        """The epochs so far."""
        return [msgspec.json.decode(line, type=Epoch) for line in self._metric_lines]

    def record_data(self, splits: Splits) -> None:
        """Note the data set; `InvalidInputError` when an earlier life of the run had another."""
        sizes = {name: len(getattr(splits, name)) for name in ("train", "validation", "test", "calibration")}
        document = {"sha256": splits.sha256, "examples": sizes, "classes": splits.train.classes}
        document["cleaning"] = msgspec.to_builtins(splits.train.cleaning)
        existing = self._read("data.json")
        if existing and json.loads(existing)["sha256"] != splits.sha256:
            raise InvalidInputError(f"The run {self.run_name!r} was started on other data; give another --run.")
        self._write("data.json", json.dumps(document).encode())

    def record_factory(self, source: str) -> None:
        """Note the source of the user's model; `InvalidInputError` when an earlier life of the run had another."""
        if self._read(FACTORY_FILE) not in ("", source):
            raise InvalidInputError(
                f"The run {self.run_name!r} was started with another {FACTORY_FILE}; give another --run."
            )
        self._write(FACTORY_FILE, source.encode())

    def record_folds(self, folds: FoldScores) -> None:
        """Note what the folds gave, so far."""
        self._write("folds.json", json.dumps(asdict(folds)).encode())

    @property
    def folds(self) -> FoldScores | None:
        """What the folds gave, so far."""
        text = self._read("folds.json")
        if not text:
            return None
        document = json.loads(text)
        return FoldScores(document["metric"], tuple(document["values"]))

    def open_checkpoints(self, folder: str) -> CheckpointStore:
        """The checkpoints of a training of this run."""
        return CheckpointStore(self._store, self.path(folder), self._recipe_sha256)

    def write_plots(self, plots: Mapping[str, bytes]) -> None:
        """Add pictures, by their file names."""
        for name, plot in plots.items():
            self._write(name, plot)

    def write_sample(self, text: str) -> None:
        """Add what a language model writes."""
        self._write("sample.txt", text.encode())

    def record_version(self, reference: ModelReference) -> None:
        """Note which version came out."""
        self._write("published.json", encode_document(PublishedVersion(str(reference))))

    @property
    def published_version(self) -> ModelReference | None:
        """The version that came out in an earlier life of the run, if one did."""
        if document := run_store.read_document_or_none(self._store, self.path("published.json"), PublishedVersion):
            return ModelReference.parse(document.reference)
        return self._find_committed_version() if self._metric_lines else None

    def _find_committed_version(self) -> ModelReference | None:
        """The run's version in the registry: it may have been killed between the commit and its note of it."""
        registry, name = Registry(self._store), self._recipe.name
        for version in sorted(registry.list_versions(name), reverse=True):
            if registry.load_manifest(name, version).by == self.path("").rstrip("/"):
                return ModelReference(name, version)
        return None

    def _refuse_other_recipe(self) -> None:
        existing = validate_recipe(parse_yaml(self._read("recipe.yaml"), "recipe.yaml"), self.path("recipe.yaml"))
        if differences := find_differing_keys(existing, self._recipe):
            raise InvalidInputError(
                f"The run {self.run_name!r} was started with another recipe: {', '.join(differences)} differ; "
                "give that recipe again, or another --run."
            )

    def _read(self, name: str) -> str:
        return run_store.read_text_or_none(self._store, self.path(name)) or ""

    def _write(self, name: str, data: bytes) -> None:
        self._store.put(self.path(name), data)
