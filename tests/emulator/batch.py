"""Batch: jobs that run. ministack records them, and says at once that they have succeeded.

Here a submitted job runs its definition's container on this machine's Docker, with the credentials of its role, its
retry table and its log, and every change of its state is an event. `batch_jobs` has what needs no ministack.
"""

import copy
import json
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from ministack.core.responses import error_response_json
from ministack.services import batch, eventbridge

from tests.emulator import batch_iam, batch_jobs, batch_resources, batch_roles
from tests.emulator.batch_jobs import Document
from tests.emulator.batch_runner import JobRunner, Place, now_ms

Answer = tuple[int, dict[str, str], bytes]
_runners: dict[str, JobRunner] = {}


class ClientError(Exception):
    """A request that Batch refuses."""


def extend() -> None:
    """Add all of this to the running ministack."""
    operations: dict[str, Callable[[Document], Document]] = {
        "submitjob": submit_job,
        "describejobs": describe_jobs,
        "listjobs": list_jobs,
        "terminatejob": terminate_job,
        "canceljob": cancel_job,
        "registerjobdefinition": batch_resources.register_definition,
        "describejobdefinitions": describe_definitions,
    }
    batch._DISPATCH.update({f"/v1/{name}": _answer_with(operation) for name, operation in operations.items()})
    batch_resources.extend()
    batch_iam.extend()


def _answer_with(operation: Callable[[Document], Document]) -> Callable[[Document], Answer]:
    def answer(request: Document) -> Answer:
        try:
            made: Answer = batch._json(200, operation(request))
        except (ClientError, ValueError) as exc:
            made = error_response_json("ClientException", str(exc), 400)
        return made

    return answer


def submit_job(request: Document) -> Document:
    """Start a job in a thread of its own."""
    queue = find_queue(request.get("jobQueue", ""))
    definition = find_definition(request.get("jobDefinition", ""))
    if problem := batch_jobs.check_submission(request, definition):
        raise ClientError(problem)
    arn = batch_roles.build_arn("batch", f"job/{uuid.uuid4()}")
    job = batch_jobs.build_job(arn, queue["jobQueueArn"], definition, request, now_ms())
    nodes = [batch_jobs.build_node_job(job, node) for node in range(job.get("nodeProperties", {}).get("numNodes", 0))]
    batch._jobs.update({one["jobId"]: one for one in (job, *nodes)})
    _runners[job["jobId"]] = JobRunner(job, nodes, find_place(queue), announce)
    _runners[job["jobId"]].start()
    return {"jobArn": arn, "jobName": job["jobName"], "jobId": job["jobId"]}


def describe_jobs(request: Document) -> Document:
    """Describe jobs, without those that are unknown."""
    return {"jobs": [copy.deepcopy(batch._jobs[one]) for one in request.get("jobs", []) if one in batch._jobs]}


def list_jobs(request: Document) -> Document:
    """List the jobs of a queue by name, or else by state, or the nodes of a job."""
    if parent := request.get("multiNodeJobId"):
        return {"jobSummaryList": [summarize(job) for job in all_jobs() if job["jobId"].startswith(f"{parent}#")]}
    queue = find_queue(request.get("jobQueue", ""))["jobQueueArn"]
    own = [job for job in all_jobs() if job["jobQueue"] == queue and "nodeDetails" not in job]
    filters = {one["name"]: one["values"] for one in request.get("filters", [])}
    if unknown := filters.keys() - {"JOB_NAME"}:
        raise ClientError(f"This emulator does not filter jobs by {', '.join(sorted(unknown))}.")
    if filters:
        own = [job for job in own if any(matches_name(job["jobName"], one) for one in filters["JOB_NAME"])]
    else:
        own = [job for job in own if job["status"] == request.get("jobStatus", "RUNNING")]
    return {"jobSummaryList": [summarize(job) for job in own]}


def terminate_job(request: Document) -> Document:
    """End a job, whatever its state; of one that has ended nothing changes."""
    return _stop(request, running_too=True)


def cancel_job(request: Document) -> Document:
    """End a job that waits; one that starts or runs goes on."""
    return _stop(request, running_too=False)


def _stop(request: Document, *, running_too: bool) -> Document:
    if not request.get("reason"):
        raise ClientError("reason is required")
    if runner := _runners.get(request.get("jobId", "").partition("#")[0]):
        runner.stop(request["reason"], running_too=running_too)
    return {}


def describe_definitions(request: Document) -> Document:
    """Describe definitions by ARN or `name:revision`, or by name and state, newest first."""
    named = request.get("jobDefinitions") or [request["jobDefinitionName"]] if request else []
    found = [one for revisions in batch._job_definitions.values() for one in reversed(revisions)]
    status = request.get("status")
    return {
        "jobDefinitions": [
            one for one in found
            if (not named or name_definition(one) & set(named)) and status in (None, one["status"])
        ]
    }  # fmt: skip


def name_definition(definition: Document) -> set[str]:
    """Return the names by which a definition may be asked for."""
    name, revision = definition["jobDefinitionName"], definition["revision"]
    return {name, f"{name}:{revision}", definition["jobDefinitionArn"]}


def find_queue(reference: str) -> Document:
    """Find a queue by its name or ARN."""
    for queue in batch._job_queues.values():
        if reference in (queue["jobQueueName"], queue["jobQueueArn"]):
            found: Document = queue
            return found
    raise ClientError(f"Job queue {reference} not found")


def find_definition(reference: str) -> Document:
    """Find a definition by its ARN, by name and revision, or by name alone, which is the newest active revision."""
    for definition in describe_definitions({})["jobDefinitions"]:
        if definition["status"] == "ACTIVE" and reference in name_definition(definition):
            found: Document = definition
            return found
    raise ClientError(f"Job definition {reference} not found or not active")


def find_place(queue: Document) -> Place:
    """Find where jobs of a queue run: in its first environment, since this machine is never full."""
    first = min(queue["computeEnvironmentOrder"], key=lambda one: one["order"])["computeEnvironment"]
    name = first.rpartition("/")[2]
    environment = batch._compute_envs[name]
    cluster = environment["ecsClusterArn"].rpartition("/")[2]
    return Place(queue["jobQueueName"], name, cluster, batch_resources.read_stop_seconds(environment))


def all_jobs() -> Iterator[Document]:
    """All jobs, nodes among them, oldest first."""
    yield from list(batch._jobs.values())


def summarize(job: Document) -> Document:
    """Summarize a job for a list of them."""
    names = (
        "jobArn",
        "jobId",
        "jobName",
        "createdAt",
        "status",
        "statusReason",
        "startedAt",
        "stoppedAt",
        "jobDefinition",
    )
    return {name: job[name] for name in names if name in job}


def matches_name(name: str, pattern: str) -> bool:
    """Whether a job's name is this one, or begins with what is before a `*`; case does not count."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name, re.IGNORECASE) is not None


def announce(job: Document) -> None:
    """Put a job's new state onto the default event bus, as Batch does."""
    entry: dict[str, Any] = {
        "Source": "aws.batch",
        "DetailType": "Batch Job State Change",
        "Detail": json.dumps(job),
        "Resources": [job["jobArn"]],
    }
    eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)
