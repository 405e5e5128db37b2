"""Where trainings run, seen from the API: what starts a job, looks at it, reads its log and stops it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pilotlight.errors import UnsupportedError

JobPhase = Literal["waiting", "running", "over"]
NO_TRAINING_MESSAGE = (
    "This stack does not train: it was deployed without TrainingSubnets. Name the subnets of the training machines, or "
    "train on a machine of your own with `pilotlight train RECIPE --store s3://BUCKET`."
)


def format_recipe_source(run: str) -> str:
    """The recipe of a run, as the training job's command line names it."""
    return f"store:runs/{run}/recipe.yaml"


@dataclass(frozen=True)
class JobStatus:
    """What a launcher knows of a job."""

    phase: JobPhase
    launcher_state: str  # the launcher's own for its state
    reason: str = ""
    attempts: int = 0
    log: str = ""  # the launcher's name for the log of the newest attempt


@dataclass(frozen=True)
class LogPage:
    """Lines of a log; `token` goes on behind them."""

    lines: list[str]
    token: str


class Launcher(Protocol):
    """Starts jobs and looks at them, by ids of its own. Each method raises `UnavailableError` when it cannot now."""

    name: str

    def check_nodes(self, nodes: int) -> None:
        """Raise what stands against any job over so many nodes, before anything is written down."""

    def start_job(self, run: str, nodes: int) -> str:
        """Start a job that trains the run's recipe; gives its id."""

    def find_job(self, run: str, since: str) -> str | None:
        """The id of a job of that run which was started since then, RFC 3339; for a start whose end nobody heard."""

    def poll(self, ids: Sequence[str]) -> Mapping[str, JobStatus]:
        """How these jobs are; those that the launcher has forgotten are left out."""

    def read_log(self, job: str, log: str, token: str) -> LogPage:
        """The next lines of a job's log; an empty token begins at its start."""

    def stop_job(self, job: str, reason: str) -> None:
        """Have the job save and end; fine if it has ended."""


class NoLauncher:
    """The launcher of a stack that trains nothing: there are no jobs, and none can be started."""

    name = "none"

    def check_nodes(self, nodes: int) -> None:
        """Refuse, and say what the stack lacks."""
        raise UnsupportedError(NO_TRAINING_MESSAGE)

    def start_job(self, run: str, nodes: int) -> str:
        """Refuse likewise."""
        raise UnsupportedError(NO_TRAINING_MESSAGE)

    def find_job(self, run: str, since: str) -> str | None:
        """Nothing was ever started."""
        return None

    def poll(self, ids: Sequence[str]) -> Mapping[str, JobStatus]:
        """Nothing is known."""
        return {}

    def read_log(self, job: str, log: str, token: str) -> LogPage:
        """Refuse: the logs are where the training was."""
        raise UnsupportedError(NO_TRAINING_MESSAGE)

    def stop_job(self, job: str, reason: str) -> None:
        """Refuse: what runs elsewhere cannot be stopped from here."""
        raise UnsupportedError(NO_TRAINING_MESSAGE)
