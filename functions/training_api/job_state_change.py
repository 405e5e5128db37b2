"""Record the end of a Batch job where the training is shown, and count a failure.

Batch forgets jobs after some days; the run keeps them. A published version needs nothing here: its manifest's event
starts the promote function, which runs the gate. Source of the form: AWS Batch User Guide, Batch job state change
events.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from functions.training_api.aws_batch import parse_job_status
from functions.training_api.training_status import read_recipe_settings
from pilotlight.contracts.codec import format_utc_now
from pilotlight.contracts.names import NAME_PATTERN
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.observability.emf import count
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs import run_store
from pilotlight.training_runs.jobs import JobOutcome, TrainingJob, open_job_document

JOB_STATE_CHANGE = "Batch Job State Change"
CLOCK_SKEW_S = 5  # by which Batch's clock may be behind ours
END_STATES: Mapping[str, Any] = {"SUCCEEDED": "succeeded", "FAILED": "failed"}


def record_job_end(store: ObjectStore, event: Mapping[str, Any]) -> str:
    """Handle an event, and return what was done in a sentence; `InvalidInputError` for any other event."""
    job = event["detail"]
    run = str((job.get("parameters") or {}).get("run", ""))
    if event.get("detail-type") != JOB_STATE_CHANGE or job["status"] not in END_STATES:
        raise InvalidInputError(f"The event {event.get('detail-type')!r} is no end of a Batch job.")
    if "#" in job["jobId"]:
        return f"{job['jobId']} is one node of a job, and not its end."
    if re.fullmatch(NAME_PATTERN, run) is None:
        return f"The job {job['jobId']} is of no run."
    try:
        updated = open_job_document(store, run).update(lambda old: add_job_end(old, job))
    except NotFoundError:
        return f"The job {job['jobId']} of {run!r} was not started here."
    if updated.id != job["jobId"]:
        return f"The run {run!r} has another job by now, {updated.id or 'not started yet'}."
    if updated.end and updated.end.state == "failed" and updated.stop is None:
        model = str(read_recipe_settings(run_store.load_run(store, run).recipe).get("name", ""))
        count("TrainingFailed", {"run": run, "reason": updated.end.reason}, model=model)
    return f"{run}: {job['status']}. {updated.end.reason if updated.end else ''}".rstrip()


def add_job_end(job: TrainingJob, event_job: Mapping[str, Any]) -> TrainingJob:
    """Add the end to a job, if the event is about this job and it has no end yet.

    A job without an id matches if Batch's job is younger: the event may come before the id is written.
    """
    is_this = job.id == event_job["jobId"] or (
        not job.id and event_job.get("createdAt", 0) / 1000 > get_request_time(job) - CLOCK_SKEW_S
    )
    if job.end is not None or not is_this:
        return job
    job_status = parse_job_status(dict(event_job))
    end = JobOutcome(
        END_STATES[event_job["status"]],
        job_status.reason,
        parse_stop_time(event_job),
        job_status.attempts,
        job_status.log,
    )
    return msgspec.structs.replace(job, id=event_job["jobId"], end=end)


def get_request_time(job: TrainingJob) -> float:
    """Return when the job was requested, in seconds since 1970."""
    return datetime.fromisoformat(job.asked).timestamp()


def parse_stop_time(event_job: Mapping[str, Any]) -> str:
    """Return when the job ended; Batch counts milliseconds since 1970."""
    at = event_job.get("stoppedAt")
    return datetime.fromtimestamp(at / 1000, UTC).isoformat() if at else format_utc_now()
