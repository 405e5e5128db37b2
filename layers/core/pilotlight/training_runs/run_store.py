"""What a training run leaves in the store for people to look at, as the job writes it and the command reads it.

    runs/<run>/recipe.yaml      as run
    runs/<run>/status.json      a `Status`: under way, paused, finished, failed
    runs/<run>/metrics.jsonl    a `Line` per epoch, so far
    runs/<run>/published.json   a `Published`: the version that came out
    runs/<run>/*.png            the pictures

The documents themselves are in `journal`; what `jobs` adds is of runs that were started over HTTP. It knows documents,
not what a recipe's words mean. Fields that a newer job added are let through.
"""

import json
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from pilotlight.contracts.manifest import Document, Reference, decode
from pilotlight.contracts.run import Line, Published, State, Status
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.storage.object_store import ObjectStore

READERS = 8  # runs read at once: each is four small objects, tens of milliseconds apart on S3


@dataclass(frozen=True)
class Run:
    """The folder of a run, read."""

    name: str
    recipe: str  # YAML
    status: Status | None  # none of before there were any
    lines: tuple[Line, ...]
    published: Reference | None

    @property
    def state(self) -> State:
        """How it is, as far as anybody knows."""
        if self.published:
            return "finished"
        return self.status.state if self.status else "unknown"

    @property
    def heard(self) -> str:
        """When it last wrote anything."""
        return max([line.at for line in self.lines[-1:]] + [self.status.at if self.status else ""])

    @property
    def seconds(self) -> float:
        """How long it took so far: what it said, or at least what its epochs took."""
        said = self.status.seconds if self.status else 0.0
        return max(said, sum(line.seconds for line in self.lines))


def new_name(model: str) -> str:
    """A name that no run has yet: the model's, the time, and four random digits."""
    return f"{model}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def path(run: str, file: str) -> str:
    """The key of a file of a run."""
    return f"runs/{run}/{file}"


def names(store: ObjectStore) -> list[str]:
    """Every run in the store, sorted."""
    return store.folders("runs")


def read(store: ObjectStore, run: str) -> Run:
    """A run; `NotFoundError` when there is none of that name."""
    recipe = text(store, path(run, "recipe.yaml"))
    if recipe is None:
        raise NotFoundError(f"There is no run {run!r} in {store.url}; `pilotlight runs` lists all.")
    published = document(store, path(run, "published.json"), Published)
    return Run(
        name=run,
        recipe=recipe,
        status=document(store, path(run, "status.json"), Status),
        lines=lines(text(store, path(run, "metrics.jsonl")) or "", path(run, "metrics.jsonl")),
        published=Reference.parse(published.reference) if published else None,
    )


def read_all(store: ObjectStore, chosen: Sequence[str]) -> list[Run]:
    """These runs, in that order."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda run: read(store, run), chosen))


def pictures(store: ObjectStore, run: str) -> list[str]:
    """The keys of a run's pictures, sorted."""
    return sorted(key for key in store.paths(f"runs/{run}") if key.endswith(".png"))


def kept(lines: Sequence[Line], min_delta: float = 0.0) -> Line | None:
    """The epoch whose weights early stopping keeps: the last that lowered the validation loss by more than that."""
    best: Line | None = None
    for line in lines:
        loss = line.validation_loss
        if loss is None or line.train_loss is None:
            continue
        if best is None or best.validation_loss is None or loss < best.validation_loss - min_delta:
            best = line
    return best


def lines(content: str, where: str) -> tuple[Line, ...]:
    """The lines of metrics.jsonl; the json module reads the NaN of files from before there were nulls."""
    try:
        found = [json.loads(line, parse_constant=lambda _: None) for line in content.splitlines()]
        return tuple(msgspec.convert(found, list[Line]))
    except (ValueError, msgspec.ValidationError) as exc:
        raise InvalidInputError(f"{where} does not hold epochs: {exc}.") from exc


def document(store: ObjectStore, key: str, kind: type[Document]) -> Document | None:
    """A document of a run, if it is there."""
    content = text(store, key)
    return None if content is None else decode(content.encode(), kind, key)


def text(store: ObjectStore, key: str) -> str | None:
    """An object's text, if it is there."""
    try:
        return store.get(key).data.decode()
    except NotFoundError:
        return None


def duration(seconds: float) -> str:
    """Seconds for people: 8 s, 3 min 20 s, 5 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
