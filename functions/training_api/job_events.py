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

from functions.training_api.aws_batch import parse_job_status
from functions.training_api.training_status import read_recipe_settings
from pilotlight.contracts.codec import format_utc_now
from pilotlight.contracts.names import NAME_PATTERN
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.observability.emf import count
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs import jobs, run_store
from pilotlight.training_runs.jobs import JobOutcome, TrainingJob

JOB_STATE_CHANGE = "Batch Job State Change"
CLOCK_SKEW_S = 5  # by which Batch's clock may be behind ours
END_STATES: Mapping[str, Any] = {"SUCCEEDED": "succeeded", "FAILED": "failed"}


def record_job_end(store: ObjectStore, event: Mapping[str, Any]) -> str:
    """See to an event; what was done, in a sentence. `InvalidInputError` for one that nobody subscribed to."""
    job = event["detail"]
    run = str((job.get("parameters") or {}).get("run", ""))
    if event.get("detail-type") != JOB_STATE_CHANGE or job["status"] not in END_STATES:
        raise InvalidInputError(f"The event {event.get('detail-type')!r} is no end of a Batch job.")
    if "#" in job["jobId"]:
        return f"{job['jobId']} is one node of a job, and not its end."
    if re.fullmatch(NAME_PATTERN, run) is None:
        return f"The job {job['jobId']} is of no run."
    try:
        updated = jobs.update_job(store, run, lambda old: add_job_end(old, job))
    except NotFoundError:
        return f"The job {job['jobId']} of {run!r} was not started here."
    if updated.id != job["jobId"]:
        return f"The run {run!r} has another job by now, {updated.id or 'not started yet'}."
    if updated.end and updated.end.state == "failed" and updated.stop is None:
        model = str(read_recipe_settings(run_store.load_run(store, run).recipe).get("name", ""))
        count("TrainingFailed", {"run": run, "reason": updated.end.reason}, model=model)
    return f"{run}: {job['status']}. {updated.end.reason if updated.end else ''}".rstrip()


def add_job_end(job: TrainingJob, event_job: Mapping[str, Any]) -> TrainingJob:
    """The job with its end, if it is this one and has none yet.

    One without an id is this one if Batch has it since then: the event may be faster than who writes the id down.
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
    """When the job was asked for, in seconds since 1970."""
    return datetime.fromisoformat(job.asked).timestamp()


def parse_stop_time(event_job: Mapping[str, Any]) -> str:
    """When it ended; Batch counts milliseconds since 1970."""
    at = event_job.get("stoppedAt")
    return datetime.fromtimestamp(at / 1000, UTC).isoformat() if at else format_utc_now()
