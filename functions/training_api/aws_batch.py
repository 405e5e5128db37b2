"""Trainings as jobs of AWS Batch, with logs in CloudWatch. The only module here that imports boto3, at the first call.

A job's parameters are the run and the key of its recipe, never the recipe itself. The Batch User Guide, Job states,
describes a job's states. A job over several nodes is one job, whose main node `#0` has the log.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from functions.training_api.launcher import JobPhase, JobStatus, LogPage, format_recipe_source
from pilotlight.errors import InvalidInputError, NotFoundError, UnavailableError, format_cause
from pilotlight.settings import Settings

MAX_DESCRIBED_JOBS = 100  # jobs of one call of DescribeJobs
PHASES: dict[str, JobPhase] = {"RUNNING": "running", "SUCCEEDED": "over", "FAILED": "over"}  # jobs in other states wait
PAGE_LINES = 1000  # lines of a log at once
STACK_TAG = "pilotlight-stack"  # by which the role recognises its own jobs
CANCELLED_PREFIX = "Cancelled: "  # begins the reason of a job's end that sends no notification; infra/training.yaml
# In seconds, within the function's 28. One attempt: SubmitJob has no token, so a retry could submit a second job.
CLIENT_CONFIG: Any = {"connect_timeout": 3, "read_timeout": 10, "retries": {"total_max_attempts": 1}}
AwsResponse = dict[str, Any]


@dataclass(frozen=True)
class JobTarget:
    """A queue, and the definition of jobs in it, by ARN."""

    queue: str
    definition: str


class AwsBatchLauncher:
    """The launcher of a stack that trains on AWS Batch."""

    name = "batch"

    def __init__(self, settings: Settings) -> None:
        self._single_node = JobTarget(settings.training_queue, settings.training_job)
        self._multi_node = JobTarget(settings.nodes_queue, settings.nodes_job)
        self._logs, self._stack = settings.training_logs, settings.training_stack
        self._clients: dict[str, Any] = {}

    def check_nodes(self, nodes: int) -> None:
        """Accept any number of nodes."""

    def start_job(self, run: str, nodes: int) -> str:
        """Submit the run to the queue for as many nodes."""
        target = self._multi_node if nodes > 1 else self._single_node
        more: AwsResponse = {"nodeOverrides": {"numNodes": nodes}} if nodes > 1 else {}
        answer = self._call_aws(
            "batch",
            "submit_job",
            jobName=format_job_name(run),
            jobQueue=target.queue,
            jobDefinition=target.definition,
            parameters={"run": run, "recipe": format_recipe_source(run)},
            tags={STACK_TAG: self._stack, "pilotlight-run": run},
            **more,
        )
        return str(answer["jobId"])

    def find_job(self, run: str, since: str) -> str | None:
        """Search both queues for a job of the run's name."""
        filters = [{"name": "JOB_NAME", "values": [format_job_name(run)]}]
        since_ms = datetime.fromisoformat(since).timestamp() * 1000  # ms, as Batch counts
        for queue in filter(None, {self._single_node.queue, self._multi_node.queue}):
            found = self._call_aws("batch", "list_jobs", jobQueue=queue, filters=filters)["jobSummaryList"]
            for job in found:
                if job["jobName"] == format_job_name(run) and job.get("createdAt", 0) >= since_ms:
                    return str(job["jobId"])
        return None

    def poll(self, ids: Sequence[str]) -> Mapping[str, JobStatus]:
        """Describe all jobs, a hundred at a time."""
        return {job["jobId"]: parse_job_status(job) for job in self._describe_jobs(ids)}

    def read_log(self, job: str, log: str, token: str) -> LogPage:
        """Read the next lines of the newest attempt's stream, or the rest of the stream that was read before."""
        stream, next_token = decode_token(token)
        newest = log or self._find_log_stream(job)
        if not (stream or newest):
            return LogPage([], "")  # it has not started
        page, next_token = self._read_log_events(stream or newest, next_token)
        if not page and stream and newest and stream != newest:
            stream, (page, next_token) = newest, self._read_log_events(newest, "")
        return LogPage(page, encode_token(stream or newest, next_token))

    def stop_job(self, job: str, reason: str) -> None:
        """Terminate the job: a container gets SIGTERM, saves, and is killed after 110 s; a waiting job is removed."""
        self._call_aws("batch", "terminate_job", jobId=job, reason=CANCELLED_PREFIX + reason)

    def _find_log_stream(self, job: str) -> str:
        """Find the log of the newest attempt; of several nodes, the main one's."""
        found = {one["jobId"]: find_log_stream(one) for one in self._describe_jobs([job])}
        if not found.get(job):
            found |= {one["jobId"]: find_log_stream(one) for one in self._describe_jobs([f"{job}#0"])}
        return found.get(job) or found.get(f"{job}#0", "")

    def _read_log_events(self, stream: str, next_token: str) -> tuple[list[str], str]:
        more = {"nextToken": next_token} if next_token else {}
        try:
            answer = self._call_aws(
                "logs",
                "get_log_events",
                logGroupName=self._logs,
                logStreamName=stream,
                startFromHead=True,
                limit=PAGE_LINES,
                **more,
            )
        except NotFoundError:
            return [], ""  # the container has not written anything yet
        return [event["message"].rstrip("\r\n") for event in answer["events"]], answer["nextForwardToken"]

    def _describe_jobs(self, ids: Sequence[str]) -> Iterator[AwsResponse]:
        for first in range(0, len(ids), MAX_DESCRIBED_JOBS):
            yield from self._call_aws("batch", "describe_jobs", jobs=list(ids[first : first + MAX_DESCRIBED_JOBS]))[
                "jobs"
            ]

    def _call_aws(self, service: str, action: str, **arguments: Any) -> AwsResponse:  # noqa: ANN401 - boto3 ships no types
        import boto3  # 0.2 s, which a list of old trainings does not need
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if service not in self._clients:
                self._clients[service] = boto3.client(service, config=Config(**CLIENT_CONFIG))
            answer: AwsResponse = getattr(self._clients[service], action)(**arguments)
        except ClientError as exc:
            if exc.response["Error"]["Code"] == "ResourceNotFoundException":
                raise NotFoundError(f"{service} knows nothing of that: {format_cause(exc)}.") from exc
            raise UnavailableError(f"{service} did not {action}: {format_cause(exc)}.", retry_after=5) from exc
        except BotoCoreError as exc:
            raise UnavailableError(f"{service} did not {action}: {format_cause(exc)}.", retry_after=5) from exc
        return answer


def format_job_name(run: str) -> str:
    """Format a run's name for Batch: letters, digits, - and _."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", run)


def parse_job_status(job: AwsResponse) -> JobStatus:
    """Parse a job from DescribeJobs, or from the event of its end."""
    state = job["status"]
    attempts = len(job.get("attempts") or []) + (1 if state == "RUNNING" else 0)
    return JobStatus(PHASES.get(state, "waiting"), state, format_reason(job), attempts, find_log_stream(job))


def format_reason(job: AwsResponse) -> str:
    """Join Batch's reason for the job's state with that of the container, of several nodes with the last attempt's."""
    container = job.get("container") or ((job.get("attempts") or [{}])[-1].get("container") or {})
    code = container.get("exitCode")
    words = [job.get("statusReason"), container.get("reason"), f"exit code {code}" if code is not None else None]
    return "; ".join(dict.fromkeys(word for word in words if word))


def find_log_stream(job: AwsResponse) -> str:
    """Find the log of the newest attempt that has one."""
    tries = [attempt.get("container") or {} for attempt in job.get("attempts") or []]
    names = [one.get("logStreamName") or "" for one in (*tries, job.get("container") or {})]
    return next((name for name in reversed(names) if name), "")


def encode_token(stream: str, next_token: str) -> str:
    """Encode a stream and a position in it as one token for URLs."""
    return base64.urlsafe_b64encode(msgspec.json.encode([stream, next_token])).decode()


def decode_token(token: str) -> tuple[str, str]:
    """Decode the stream and the position in it; both empty at the start."""
    if not token:
        return "", ""
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token), type=tuple[str, str])
    except ValueError as exc:  # binascii's and msgspec's are subclasses
        raise InvalidInputError(f"token is {token[:60]!r}, which is not one that a log's `next` gave.") from exc
