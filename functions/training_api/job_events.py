"""What the end of a Batch job means: it is written down where the training is shown, and a failure is counted.

Batch forgets jobs after some days; the run remembers. A version that came out needs nothing from here: its manifest has
already told the promote function, which takes it to the gate. Source of the form: AWS Batch User Guide, Batch job state
change events.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from functions.training_api.aws_batch import seen
from functions.training_api.training_status import settings
from pilotlight.contracts.manifest import NAME_PATTERN
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.observability.emf import count
from pilotlight.registry.alias_updates import now
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs import jobs, run_store
from pilotlight.training_runs.jobs import End, Job

CHANGE = "Batch Job State Change"
CLOCKS_S = 5  # by which Batch's clock may be behind ours
STATES: Mapping[str, Any] = {"SUCCEEDED": "succeeded", "FAILED": "failed"}


def record(store: ObjectStore, event: Mapping[str, Any]) -> str:
    """See to an event; what was done, in a sentence. `InvalidInputError` for one that nobody subscribed to."""
    job = event["detail"]
    run = str((job.get("parameters") or {}).get("run", ""))
    if event.get("detail-type") != CHANGE or job["status"] not in STATES:
        raise InvalidInputError(f"The event {event.get('detail-type')!r} is no end of a Batch job.")
    if "#" in job["jobId"]:
        return f"{job['jobId']} is one node of a job, and not its end."
    if re.fullmatch(NAME_PATTERN, run) is None:
        return f"The job {job['jobId']} is of no run."
    try:
        noted = jobs.change(store, run, lambda old: ended(old, job))
    except NotFoundError:
        return f"The job {job['jobId']} of {run!r} was not started here."
    if noted.id != job["jobId"]:
        return f"The run {run!r} has another job by now, {noted.id or 'not started yet'}."
    if noted.end and noted.end.state == "failed" and noted.stop is None:
        model = str(settings(run_store.read(store, run).recipe).get("name", ""))
        count("TrainingFailed", {"run": run, "reason": noted.end.reason}, model=model)
    return f"{run}: {job['status']}. {noted.end.reason if noted.end else ''}".rstrip()


def ended(job: Job, told: Mapping[str, Any]) -> Job:
    """The job with its end, if it is this one and has none yet.

    One without an id is this one if Batch has it since then: the event may be faster than who writes the id down.
    """
    is_this = job.id == told["jobId"] or (not job.id and told.get("createdAt", 0) / 1000 > asked_s(job) - CLOCKS_S)
    if job.end is not None or not is_this:
        return job
    look = seen(dict(told))
    end = End(STATES[told["status"]], look.reason, stopped(told), look.attempts, look.log)
    return msgspec.structs.replace(job, id=told["jobId"], end=end)


def asked_s(job: Job) -> float:
    """When the job was asked for, in seconds since 1970."""
    return datetime.fromisoformat(job.asked).timestamp()


def stopped(told: Mapping[str, Any]) -> str:
    """When it ended; Batch counts milliseconds since 1970."""
    at = told.get("stoppedAt")
    return datetime.fromtimestamp(at / 1000, UTC).isoformat() if at else now()
