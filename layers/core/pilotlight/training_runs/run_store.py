"""The folders of training runs in the store, as the job writes them and as the command and the API read them.

    runs/<run>/recipe.yaml      as run
    runs/<run>/status.json      a `RunStatus`: under way, paused, finished, failed
    runs/<run>/metrics.jsonl    a `EpochRecord` per epoch, so far
    runs/<run>/published.json   a `PublishedVersion`: the version that came out
    runs/<run>/*.png            the pictures

The job writes them in `run_folder`; `jobs` adds a document for runs that were started over HTTP. A recipe is text here.
Unknown fields, which a newer job may write, are ignored.
"""

import json
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from pilotlight.contracts.names import ModelReference
from pilotlight.contracts.run import EpochRecord, PublishedVersion, RunState, RunStatus
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.storage.documents import Document
from pilotlight.storage.object_store import ObjectStore

READERS = 8  # runs read at once: each is four small objects, tens of milliseconds apart on S3


@dataclass(frozen=True)
class TrainingRun:
    """The folder of a run, read."""

    name: str
    recipe: str  # YAML
    status: RunStatus | None  # an older job may have written none
    epochs: tuple[EpochRecord, ...]
    published_reference: ModelReference | None

    @property
    def state(self) -> RunState:
        """The state, as far as it is known."""
        if self.published_reference:
            return "finished"
        return self.status.state if self.status else "unknown"

    @property
    def last_update(self) -> str:
        """The time of the last epoch or status."""
        return max([line.at for line in self.epochs[-1:]] + [self.status.at if self.status else ""])

    @property
    def seconds(self) -> float:
        """Seconds so far: those of its status, or the sum of its epochs where that is more."""
        reported = self.status.seconds if self.status else 0.0
        return max(reported, sum(line.seconds for line in self.epochs))


def generate_run_name(model: str) -> str:
    """Generate a new name: the model's, the time, and four random digits."""
    return f"{model}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def run_path(run: str, file: str) -> str:
    """Return the key of a file of a run."""
    return f"runs/{run}/{file}"


def list_runs(store: ObjectStore) -> list[str]:
    """List every run in the store, sorted."""
    return store.list_folders("runs")


def load_run(store: ObjectStore, run: str) -> TrainingRun:
    """Load a run; raise `NotFoundError` when there is none of that name."""
    recipe = read_text_or_none(store, run_path(run, "recipe.yaml"))
    if recipe is None:
        raise NotFoundError(f"There is no run {run!r} in {store.url}; `pilotlight runs` lists all.")
    published = Document(store, run_path(run, "published.json"), PublishedVersion).read_or_none()
    return TrainingRun(
        name=run,
        recipe=recipe,
        status=Document(store, run_path(run, "status.json"), RunStatus).read_or_none(),
        epochs=parse_epochs(
            read_text_or_none(store, run_path(run, "metrics.jsonl")) or "", run_path(run, "metrics.jsonl")
        ),
        published_reference=ModelReference.parse(published.reference) if published else None,
    )


def load_runs(store: ObjectStore, names: Sequence[str]) -> list[TrainingRun]:
    """Load runs at the same time; return them in the order of their names."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda run: load_run(store, run), names))


def list_pictures(store: ObjectStore, run: str) -> list[str]:
    """List the keys of a run's pictures, sorted."""
    return sorted(key for key in store.list_paths(f"runs/{run}") if key.endswith(".png"))


def find_best_epoch(epochs: Sequence[EpochRecord], min_delta: float = 0.0) -> EpochRecord | None:
    """Find the epoch whose weights early stopping keeps: the last that lowered the validation loss enough."""
    best: EpochRecord | None = None
    for line in epochs:
        loss = line.validation_loss
        if loss is None or line.train_loss is None:
            continue
        if best is None or best.validation_loss is None or loss < best.validation_loss - min_delta:
            best = line
    return best


def parse_epochs(content: str, source: str) -> tuple[EpochRecord, ...]:
    """Parse the lines of metrics.jsonl; the json module reads NaN, which older jobs wrote in place of null."""
    try:
        records = [json.loads(line, parse_constant=lambda _: None) for line in content.splitlines()]
        return tuple(msgspec.convert(records, list[EpochRecord]))
    except (ValueError, msgspec.ValidationError) as exc:
        raise InvalidInputError(f"{source} does not hold epochs: {exc}.") from exc


def read_text_or_none(store: ObjectStore, key: str) -> str | None:
    """Read an object's text; return None where there is none."""
    try:
        return store.get(key).data.decode()
    except NotFoundError:
        return None


def format_duration(seconds: float) -> str:
    """Format seconds: 8 s, 3 min 20 s, 5 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
