"""The job that trains a run which somebody has asked for over HTTP: `runs/<run>/job.json`.

Written before the job is started, so that of two who ask for the same run one starts it; then with the launcher's own
id of the job, with who stopped it and why, and with how it ended. A run that goes on in another job keeps the newest.
"""

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from pilotlight.contracts.manifest import decode, encode
from pilotlight.errors import ChangedError, NotFoundError
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs.run_store import path

FILE = "job.json"
ATTEMPTS = 5  # of a compare-and-swap that others may win


class Stop(Struct, frozen=True):
    """Somebody does not want the run to go on."""

    by: str
    at: str  # RFC 3339, UTC
    why: str


class End(Struct, frozen=True):
    """How the launcher says that the job ended; `unstarted` is one that never came to it."""

    state: Literal["succeeded", "failed", "unstarted"]
    reason: str
    at: str  # RFC 3339, UTC
    attempts: int = 0
    log: str = ""  # the launcher's name for the log of the last attempt


class Job(Struct, frozen=True, kw_only=True):
    """The newest job of a run."""

    launcher: str  # batch, or local
    id: str = ""  # empty until the launcher has given one
    nodes: int = 1
    by: str
    asked: str  # RFC 3339, UTC
    number: int = 1  # of the run's jobs, from 1
    stop: Stop | None = None
    end: End | None = None


def find(store: ObjectStore, run: str) -> Job | None:
    """The run's newest job; None where nobody has asked for one."""
    try:
        return tagged(store, run)[0]
    except NotFoundError:
        return None


def tagged(store: ObjectStore, run: str) -> tuple[Job, str]:
    """The same with the e_tag that `store.replace` compares; `NotFoundError` where nobody has asked for one."""
    key = path(run, FILE)
    stored = store.get(key)
    return decode(stored.data, Job, key), stored.e_tag


def claim(store: ObjectStore, run: str, job: Job) -> None:
    """Write the run's first job; `AlreadyExistsError` when there is one."""
    store.create(path(run, FILE), encode(job))


def replace(store: ObjectStore, run: str, job: Job, e_tag: str) -> None:
    """Write what becomes of a job; `ChangedError` when somebody else was faster."""
    store.replace(path(run, FILE), encode(job), e_tag)


def change(store: ObjectStore, run: str, of: Callable[[Job], Job], attempts: int = ATTEMPTS) -> Job:
    """Swap the run's job for what `of` makes of it, again where somebody else was faster."""
    job, e_tag = tagged(store, run)
    changed = of(job)
    try:
        if changed is not job:
            replace(store, run, changed, e_tag)
    except ChangedError:
        if attempts == 1:
            raise
        return change(store, run, of, attempts - 1)
    return changed
