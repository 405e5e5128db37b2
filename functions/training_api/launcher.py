"""The API's interface to where trainings run: start a job, poll it, read its log and stop it."""

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
    """Format the recipe of a run for the training job's command line."""
    return f"store:runs/{run}/recipe.yaml"


@dataclass(frozen=True)
class JobStatus:
    """A job's state as its launcher reports it."""

    phase: JobPhase
    launcher_state: str  # the launcher's own name for its state
    reason: str = ""
    attempts: int = 0
    log: str = ""  # the launcher's name for the log of the newest attempt


@dataclass(frozen=True)
class LogPage:
    """Lines of a log; `token` continues after them."""

    lines: list[str]
    token: str


class Launcher(Protocol):
    """Starts jobs and polls them, by ids of its own. Each method raises `UnavailableError` if it fails for now."""

    name: str

    def check_nodes(self, nodes: int) -> None:
        """Raise an error if no job over so many nodes can run, before anything is written."""

    def start_job(self, run: str, nodes: int) -> str:
        """Start a job that trains the run's recipe, and return its id."""

    def find_job(self, run: str, since: str) -> str | None:
        """Find the job of the run that was started since then, RFC 3339; for a start with unknown outcome."""

    def poll(self, ids: Sequence[str]) -> Mapping[str, JobStatus]:
        """Return the states of these jobs, without those that the launcher has forgotten."""

    def read_log(self, job: str, log: str, token: str) -> LogPage:
        """Read the next lines of a job's log; an empty token starts at its beginning."""

    def stop_job(self, job: str, reason: str) -> None:
        """Make the job save and end; does nothing if it has ended."""


class NoLauncher:
    """The launcher of a stack that trains nothing: there are no jobs, and none can be started."""

    name = "none"

    def check_nodes(self, nodes: int) -> None:
        """Refuse, with a message about what the stack lacks."""
        raise UnsupportedError(NO_TRAINING_MESSAGE)

    def start_job(self, run: str, nodes: int) -> str:
        """Refuse as well."""
        raise UnsupportedError(NO_TRAINING_MESSAGE)

    def find_job(self, run: str, since: str) -> str | None:
        """Return None: no job was ever started."""
        return None

    def poll(self, ids: Sequence[str]) -> Mapping[str, JobStatus]:
        """Return nothing: no job is known."""
        return {}

    def read_log(self, job: str, log: str, token: str) -> LogPage:
        """Refuse: the logs are where the training ran."""
        raise UnsupportedError(NO_TRAINING_MESSAGE)

    def stop_job(self, job: str, reason: str) -> None:
        """Refuse: a job that runs elsewhere cannot be stopped from here."""
        raise UnsupportedError(NO_TRAINING_MESSAGE)
