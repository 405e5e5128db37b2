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

from pilotlight.contracts.metric import METRICS
from pilotlight.contracts.names import ModelReference
from pilotlight.contracts.run import EpochRecord, PublishedVersion, RunState, RunStatus
from pilotlight.errors import BrokenDocumentError, InvalidInputError, NotFoundError
from pilotlight.recipes.schema import parse_yaml
from pilotlight.storage.documents import Document
from pilotlight.storage.object_store import ObjectStore

READERS = 8  # runs read at once: each is four small objects, tens of milliseconds apart on S3


@dataclass(frozen=True)
class TrainingRun:
    """The folder of a run, read; what is broken of it is empty, and named in `error`."""

    name: str
    recipe: str  # YAML
    status: RunStatus | None  # an older job may have written none
    epochs: tuple[EpochRecord, ...]
    published_reference: ModelReference | None
    error: str = ""  # in sentences

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
    errors = list[str]()
    recipe = load_recipe(store, run_path(run, "recipe.yaml"), errors)
    if recipe is None:
        raise NotFoundError(f"There is no run {run!r} in {store.url}; `pilotlight runs` lists all.")
    status = Document(store, run_path(run, "status.json"), RunStatus).read_or_error()
    published = Document(store, run_path(run, "published.json"), PublishedVersion).read_or_error()
    errors += [str(broken) for broken in (status, published) if isinstance(broken, BrokenDocumentError)]
    return TrainingRun(
        name=run,
        recipe=recipe,
        status=status if isinstance(status, RunStatus) else None,
        epochs=load_epochs(store, run_path(run, "metrics.jsonl"), errors),
        published_reference=published.model_reference if isinstance(published, PublishedVersion) else None,
        error=" ".join(errors),
    )


def load_recipe(store: ObjectStore, path: str, errors: list[str]) -> str | None:
    """Load a run's recipe, None where there is none; for a broken one, an empty text and an error."""
    try:
        recipe = read_text_or_none(store, path)
        is_recipe = recipe is None or isinstance(parse_yaml(recipe, path), dict)
    except (InvalidInputError, BrokenDocumentError) as exc:
        errors.append(str(exc))
        return ""
    if not is_recipe:
        errors.append(f"{path} is not a recipe: it has no keys.")
    return recipe if is_recipe else ""


def load_epochs(store: ObjectStore, path: str, errors: list[str]) -> tuple[EpochRecord, ...]:
    """Load the epochs of a run up to the first line that is none, which is an error."""
    try:
        content = read_text_or_none(store, path) or ""
    except BrokenDocumentError as exc:
        errors.append(str(exc))
        return ()
    epochs = list[EpochRecord]()
    for line in content.splitlines():
        try:
            epochs.append(parse_epoch(line, f"line {len(epochs) + 1} of {path}"))
        except InvalidInputError as exc:
            errors.append(f"{exc} Epochs from there on are not shown.")
            break
    return tuple(epochs)


def load_runs(store: ObjectStore, names: Sequence[str]) -> list[TrainingRun]:
    """Load runs at the same time, in the order of their names; a folder without a recipe is left out."""

    def load_or_none(run: str) -> TrainingRun | None:
        try:
            return load_run(store, run)
        except NotFoundError:
            return None

    with ThreadPoolExecutor(READERS) as pool:
        return [run for run in pool.map(load_or_none, names) if run is not None]


def list_pictures(store: ObjectStore, run: str) -> list[str]:
    """List the keys of a run's pictures, sorted."""
    return sorted(key for key in store.list_paths(f"runs/{run}") if key.endswith(".png"))


def find_best_epoch(epochs: Sequence[EpochRecord], min_delta: float = 0.0) -> EpochRecord | None:
    """Find the epoch whose weights early stopping keeps: the last that made what it monitors enough better."""
    best: EpochRecord | None = None
    for line in epochs:
        if line.validation_loss is None or line.train_loss is None:
            continue
        if best is None or is_better_epoch(line, best, min_delta):
            best = line
    return best


def is_better_epoch(epoch: EpochRecord, best: EpochRecord, min_delta: float) -> bool:
    """Return whether an epoch is enough better than the best so far, by the validation loss or the metric named."""
    name = epoch.monitored if epoch.monitored in METRICS else "loss"  # a newer job may know more metrics
    found, former = (one.validation_loss if name == "loss" else one.monitored_value for one in (epoch, best))
    if found is None or former is None:
        return found is not None
    return METRICS[name].is_better(found, former, min_delta)


def parse_epoch(line: str, source: str) -> EpochRecord:
    """Parse a line of metrics.jsonl; the json module reads NaN, which older jobs wrote in place of null."""
    try:
        return msgspec.convert(json.loads(line, parse_constant=lambda _: None), EpochRecord)
    except (ValueError, RecursionError, msgspec.ValidationError) as exc:
        raise InvalidInputError(f"{source} is not an epoch: {exc}.") from exc


def read_text_or_none(store: ObjectStore, key: str) -> str | None:
    """Read an object's text, None where there is none; raise `BrokenDocumentError` where it is not UTF-8."""
    try:
        return store.get(key).data.decode()
    except NotFoundError:
        return None
    except UnicodeDecodeError as exc:
        raise BrokenDocumentError(f"{key} is not text: {exc}.") from exc


def format_duration(seconds: float) -> str:
    """Format seconds: 8 s, 3 min 20 s, 5 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
