"""The job of a run that was requested over HTTP: `runs/<run>/job.json`.

It is written before the job is started, so that only one of two requests for the same run starts it. Later it gets the
launcher's id of the job, who stopped it and why, and how it ended. A run keeps its newest job only.
"""

from typing import Literal

from msgspec import Struct

from pilotlight.storage.documents import Document
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs.run_store import run_path

JOB_FILE = "job.json"


class StopRequest(Struct, frozen=True):
    """A request to stop the run."""

    by: str
    at: str  # RFC 3339, UTC
    why: str


class JobOutcome(Struct, frozen=True):
    """How the job ended, as the launcher reports it; `unstarted` is a job that never started."""

    state: Literal["succeeded", "failed", "unstarted"]
    reason: str
    at: str  # RFC 3339, UTC
    attempts: int = 0
    log: str = ""  # the launcher's name for the log of the last attempt


class TrainingJob(Struct, frozen=True, kw_only=True):
    """The newest job of a run."""

    run: str = ""
    launcher: str  # batch, or local
    id: str = ""  # empty until the launcher has given one
    nodes: int = 1
    by: str
    asked: str  # RFC 3339, UTC
    number: int = 1  # of the run's jobs, from 1
    stop: StopRequest | None = None
    end: JobOutcome | None = None


def open_job_document(store: ObjectStore, run: str) -> Document[TrainingJob]:
    """Open the document of the run's newest job; a run that was not requested over HTTP has none."""
    return Document(store, run_path(run, JOB_FILE), TrainingJob, run=run)
