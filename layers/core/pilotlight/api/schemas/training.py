"""Request and response bodies of the routes below `/v1/trainings`, for function, OpenAPI document and clients."""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MaxLen
from msgspec import Struct

from pilotlight.api.schemas.request_body import matches, request_body
from pilotlight.contracts.names import NAME_PATTERN
from pilotlight.contracts.run import EpochRecord, RunStatus

TrainingState = Literal[
    "queued", "running", "stopping", "finished", "failed", "cancelled", "paused", "interrupted", "unknown"
]
ACTIVE_STATES = frozenset({"queued", "running", "stopping"})
MAX_NODES = 16


@request_body("orders no training")
class StartTrainingBody:
    """Train a recipe: a whole one, or the name of a recipe of record; `set` changes values in it, as `--set` does.

    A run's name is what makes asking twice the same as asking once. With `resume`, a run that ended without a version
    is started again, and goes on from its last checkpoint.
    """

    recipe: str | dict[str, Any]
    set: Annotated[tuple[Annotated[str, MaxLen(10_000)], ...], MaxLen(100)] = ()
    run: Annotated[str, matches(NAME_PATTERN)] | None = None  # generated unless given
    nodes: Annotated[int, Ge(1), Le(MAX_NODES)] = 1  # the number of machines that train together
    resume: bool = False


@request_body("is not an order to cancel")
class CancelTrainingBody:
    """Stop a training: it saves a checkpoint first, and can be resumed."""

    why: Annotated[str, MaxLen(1000)] = "cancelled over HTTP"


class TrainingJobInfo(Struct, frozen=True, kw_only=True):
    """The job that does a training."""

    launcher: str  # batch: AWS Batch; local: a process beside the local gateway
    id: str
    state: str  # as the launcher names it
    nodes: int = 1
    attempts: int = 0  # that have begun
    log: str = ""  # the launcher's name for the log of the newest attempt
    by: str = ""  # who asked for it
    asked: str = ""  # RFC 3339, UTC


class TrainingLinks(Struct, frozen=True):
    """Where to go on, from the API's root."""

    self: str
    log: str
    cancel: str
    version: str | None = None


class TrainingSummary(Struct, frozen=True, kw_only=True):
    """A training in a few words."""

    run: str
    model: str
    state: TrainingState
    reason: str = ""
    started: str = ""  # of its first life; RFC 3339, UTC
    heard: str = ""  # the time of its last update
    seconds: float = 0.0  # seconds so far
    epochs: int = 0  # that are over
    of: int | None = None  # at most
    last: EpochRecord | None = None  # the newest epoch
    version: str | None = None  # that came out, name:version
    job: TrainingJobInfo | None = None  # null for a run that was not started over HTTP
    links: TrainingLinks
    error: str = ""  # which of its documents are broken; what they would say is empty


class TrainingDetail(TrainingSummary, frozen=True, kw_only=True):
    """A training with all that is known of it."""

    recipe: str  # YAML
    status: RunStatus | None = None  # as the trainer reports it
    lines: tuple[EpochRecord, ...] = ()  # an epoch in each
    metrics: dict[str, float] = {}  # of the version's served variant, on the test set
    verdict: Literal["passed", "refused"] | None = None  # of the gate, on the version


class TrainingList(Struct, frozen=True):
    """Trainings, those first that changed last; `next` is what `?skip=` takes to go on, null at the end."""

    trainings: list[TrainingSummary]
    total: int
    next: int | None = None


class TrainingLog(Struct, frozen=True):
    """Lines of a training's log; `next` is what `?token=` takes to go on, `ended` says that nothing will follow."""

    lines: list[str]
    next: str
    ended: bool
