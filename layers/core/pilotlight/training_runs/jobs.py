"""The job that trains a run which somebody has asked for over HTTP: `runs/<run>/job.json`.

Written before the job is started, so that of two who ask for the same run one starts it; then with the launcher's own
id of the job, with who stopped it and why, and with how it ended. A run that goes on in another job keeps the newest.
"""

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from pilotlight.contracts.codec import decode_document, encode_document
from pilotlight.errors import ChangedError, NotFoundError
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs.run_store import run_path

JOB_FILE = "job.json"
ATTEMPTS = 5  # of a compare-and-swap that others may win


class StopRequest(Struct, frozen=True):
    """Somebody does not want the run to go on."""

    by: str
    at: str  # RFC 3339, UTC
    why: str


class JobOutcome(Struct, frozen=True):
    """How the launcher says that the job ended; `unstarted` is one that never came to it."""

    state: Literal["succeeded", "failed", "unstarted"]
    reason: str
    at: str  # RFC 3339, UTC
    attempts: int = 0
    log: str = ""  # the launcher's name for the log of the last attempt


class TrainingJob(Struct, frozen=True, kw_only=True):
    """The newest job of a run."""

    launcher: str  # batch, or local
    id: str = ""  # empty until the launcher has given one
    nodes: int = 1
    by: str
    asked: str  # RFC 3339, UTC
    number: int = 1  # of the run's jobs, from 1
    stop: StopRequest | None = None
    end: JobOutcome | None = None


def find_job(store: ObjectStore, run: str) -> TrainingJob | None:
    """The run's newest job; None where nobody has asked for one."""
    try:
        return load_job_with_e_tag(store, run)[0]
    except NotFoundError:
        return None


def load_job_with_e_tag(store: ObjectStore, run: str) -> tuple[TrainingJob, str]:
    """The same with the e_tag that `store.replace` compares; `NotFoundError` where nobody has asked for one."""
    key = run_path(run, JOB_FILE)
    stored = store.get(key)
    return decode_document(stored.data, TrainingJob, key), stored.e_tag


def create_job(store: ObjectStore, run: str, job: TrainingJob) -> None:
    """Write the run's first job; `AlreadyExistsError` when there is one."""
    store.create(run_path(run, JOB_FILE), encode_document(job))


def replace_job(store: ObjectStore, run: str, job: TrainingJob, e_tag: str) -> None:
    """Write what becomes of a job; `ChangedError` when somebody else was faster."""
    store.replace(run_path(run, JOB_FILE), encode_document(job), e_tag)


def update_job(
    store: ObjectStore, run: str, update: Callable[[TrainingJob], TrainingJob], attempts: int = ATTEMPTS
) -> TrainingJob:
    """Swap the run's job for what `update` makes of it, again where somebody else was faster."""
    job, e_tag = load_job_with_e_tag(store, run)
    updated = update(job)
    try:
        if updated is not job:
            replace_job(store, run, updated, e_tag)
    except ChangedError:
        if attempts == 1:
            raise
        return update_job(store, run, update, attempts - 1)
    return updated
