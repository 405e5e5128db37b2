"""The folder of a training run in the store, whether the run ends in a version or not: `runs/<run>/`.

recipe.yaml      as run, written first: a store without write access ends the run before the training
status.json      whether it is running, paused, finished or failed, and why
data.json        the hash of the data set, the sizes of its splits, and what the cleaning removed
factory.py       the source of a custom model
metrics.jsonl    one line per epoch, so far
*.png            the learning curves, and the results of the served variant on the test set
sample.txt       a text by a language model
decoder/         that model as a folder of Hugging Face, which `pilotlight publish` takes to serve texts
published.json   the version that came out
folds.json       the score of each fold of a cross-validation, so far
checkpoints/     while it is running: see `checkpoint`

A run that is started again under its name continues in its folder, with the recipe that it was started with. The types
of documents that other programs read are in `pilotlight.contracts.run`.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict

import msgspec

from functions.train.data.folds import FoldScores
from functions.train.data.split import Splits
from functions.train.errors import LostProcessError, PausedError
from functions.train.models.custom import FACTORY_FILE
from functions.train.training.checkpoint import CheckpointStore
from functions.train.training.training_history import EpochMetrics
from pilotlight.contracts.codec import format_utc_now
from pilotlight.contracts.names import ModelReference
from pilotlight.contracts.run import PublishedVersion, RunState, RunStatus
from pilotlight.errors import AlreadyExistsError, BrokenDocumentError, InvalidInputError, PilotlightError
from pilotlight.recipes.schema import Recipe, dump_recipe, find_differing_keys, parse_yaml, validate_recipe
from pilotlight.registry.registry import Registry
from pilotlight.storage.documents import Document
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
        """Return the key of a file of the run."""
        return run_store.run_path(self.run_name, name)

    @contextmanager
    def track_status(self) -> Iterator[None]:
        """Record that the run is running inside the context, and afterwards how this life of it ended."""
        started = time.monotonic()
        document = Document(self._store, self.path("status.json"), RunStatus)
        former = document.read_or_error()
        status = (
            former
            if isinstance(former, RunStatus)  # a broken one says nothing of former lives, and is written anew
            else RunStatus(state="running", started=format_utc_now(), at=format_utc_now(), lives=0)
        )
        status = msgspec.structs.replace(
            status, state="running", at=format_utc_now(), lives=status.lives + 1, reason=""
        )
        document.write(status)

        def end(state: RunState, reason: str = "") -> None:
            seconds = status.seconds + time.monotonic() - started
            document.write(
                msgspec.structs.replace(status, state=state, at=format_utc_now(), seconds=seconds, reason=reason)
            )

        try:
            yield
        except PausedError as exc:
            end("paused", str(exc))
            raise
        except LostProcessError as exc:
            end("interrupted", str(exc))
            raise
        except KeyboardInterrupt:
            end("interrupted", "Interrupted; start the same run again, and it goes on from its last checkpoint.")
            raise
        except Exception as exc:
            end("failed", str(exc) if isinstance(exc, PilotlightError) else f"{type(exc).__name__}: {exc}")
            raise
        end("finished")

    def record_epoch(self, epoch: EpochMetrics, remaining_s: float) -> None:
        """Add an epoch with the remaining time, in place of that epoch and later ones of an earlier life of the run.

        Objects cannot grow, so that the whole file, a few kilobytes, is written again.
        """
        line = msgspec.json.encode(
            asdict(epoch) | {"remaining_s": round(remaining_s, 3), "at": format_utc_now()}
        ).decode()
        self._metric_lines[epoch.number - 1 :] = [line + "\n"]
        self._write("metrics.jsonl", "".join(self._metric_lines).encode())

    @property
    def epochs(self) -> list[EpochMetrics]:
        """The epochs so far."""
        return [msgspec.json.decode(line, type=EpochMetrics) for line in self._metric_lines]

    def record_data(self, splits: Splits) -> None:
        """Record the data set; raise `InvalidInputError` when an earlier life of the run had another."""
        sizes = {name: len(getattr(splits, name)) for name in ("train", "validation", "test", "calibration")}
        document = {"sha256": splits.sha256, "examples": sizes, "classes": splits.train.classes}
        document["notes"] = splits.train.notes
        document["cleaning"] = msgspec.to_builtins(splits.train.cleaning)
        existing = self._read("data.json")
        if existing and json.loads(existing)["sha256"] != splits.sha256:
            raise InvalidInputError(f"The run {self.run_name!r} was started on other data; give another --run.")
        self._write("data.json", json.dumps(document).encode())

    def record_factory(self, source: str) -> None:
        """Record a custom model's source; raise `InvalidInputError` when an earlier life of the run had another."""
        if self._read(FACTORY_FILE) not in ("", source):
            raise InvalidInputError(
                f"The run {self.run_name!r} was started with another {FACTORY_FILE}; give another --run."
            )
        self._write(FACTORY_FILE, source.encode())

    def record_folds(self, folds: FoldScores) -> None:
        """Record the scores of the folds, so far."""
        self._write("folds.json", json.dumps(asdict(folds)).encode())

    @property
    def folds(self) -> FoldScores | None:
        """The scores of the folds, so far."""
        text = self._read("folds.json")
        if not text:
            return None
        document = json.loads(text)
        return FoldScores(document["metric"], tuple(document["values"]))

    def open_checkpoints(self, folder: str) -> CheckpointStore:
        """Open the checkpoints of a training of this run."""
        return CheckpointStore(self._store, self.path(folder), self._recipe_sha256)

    def write_plots(self, plots: Mapping[str, bytes]) -> None:
        """Write pictures, by their file names."""
        for name, plot in plots.items():
            self._write(name, plot)

    def write_sample(self, text: str) -> None:
        """Write a text by a language model."""
        self._write("sample.txt", text.encode())

    def write_decoder(self, files: Mapping[str, bytes]) -> None:
        """Write a language model's files, by name, to a folder that other tools read."""
        for name, content in files.items():
            self._write(f"decoder/{name}", content)

    def record_version(self, reference: ModelReference) -> None:
        """Record the published version."""
        self._open_published_document().write(PublishedVersion(str(reference)))

    @property
    def published_version(self) -> ModelReference | None:
        """The version that an earlier life of the run published, if one did."""
        if document := self._open_published_document().read_or_none():
            return ModelReference.parse(document.reference)
        return self._find_committed_version() if self._metric_lines else None

    def _open_published_document(self) -> Document[PublishedVersion]:
        return Document(self._store, self.path("published.json"), PublishedVersion)

    def _find_committed_version(self) -> ModelReference | None:
        """Find the run's version in the registry: a run may be killed between the commit and `record_version`."""
        registry, name = Registry(self._store), self._recipe.name
        for version in sorted(registry.list_versions(name), reverse=True):
            with suppress(BrokenDocumentError):  # whose it was is not known, and no other run waits for that
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
