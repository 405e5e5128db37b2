"""Trainings as jobs of AWS Batch, and their logs in CloudWatch. Alone imports boto3 here, when the first call is made.

A job's parameters are the run and the key of its recipe, never the recipe itself. What a job's states mean is in the
Batch User Guide, Job states. A job over several nodes is one job, whose main node `#0` has the log.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from functions.training_api.launcher import Look, Page, Phase, source
from pilotlight.errors import InvalidInputError, NotFoundError, UnavailableError, words
from pilotlight.settings import Settings

MOST = 100  # jobs of one call of DescribeJobs
PHASES: dict[str, Phase] = {"RUNNING": "running", "SUCCEEDED": "over", "FAILED": "over"}  # all others wait
PAGE = 1000  # lines of a log at once
TAG = "pilotlight-stack"  # by which the role knows its own jobs
CANCELLED = "Cancelled: "  # begins the reason of a job's end that nobody needs to be told of; infra/training.yaml
# In seconds, within the function's 28. One attempt: SubmitJob knows no token, and repeated unheard it is a second job.
PATIENCE: Any = {"connect_timeout": 3, "read_timeout": 10, "retries": {"total_max_attempts": 1}}
Answer = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """A queue, and the definition of jobs in it, by ARN."""

    queue: str
    definition: str


class Batch:
    """The launcher of a stack that trains."""

    name = "batch"

    def __init__(self, settings: Settings) -> None:
        self._one = Place(settings.training_queue, settings.training_job)
        self._several = Place(settings.nodes_queue, settings.nodes_job)
        self._logs, self._stack = settings.training_logs, settings.training_stack
        self._clients: dict[str, Any] = {}

    def check(self, nodes: int) -> None:
        """A queue takes any job."""

    def start(self, run: str, nodes: int) -> str:
        """Submit the run to the queue for as many nodes."""
        place = self._several if nodes > 1 else self._one
        more: Answer = {"nodeOverrides": {"numNodes": nodes}} if nodes > 1 else {}
        answer = self._call(
            "batch",
            "submit_job",
            jobName=job_name(run),
            jobQueue=place.queue,
            jobDefinition=place.definition,
            parameters={"run": run, "recipe": source(run)},
            tags={TAG: self._stack, "pilotlight-run": run},
            **more,
        )
        return str(answer["jobId"])

    def find(self, run: str, since: str) -> str | None:
        """Look through both queues for a job of the run's name."""
        wanted = [{"name": "JOB_NAME", "values": [job_name(run)]}]
        begun = datetime.fromisoformat(since).timestamp() * 1000  # ms, as Batch counts
        for queue in filter(None, {self._one.queue, self._several.queue}):
            found = self._call("batch", "list_jobs", jobQueue=queue, filters=wanted)["jobSummaryList"]
            for job in found:
                if job["jobName"] == job_name(run) and job.get("createdAt", 0) >= begun:
                    return str(job["jobId"])
        return None

    def look(self, ids: Sequence[str]) -> Mapping[str, Look]:
        """Ask for all of them, a hundred at a time."""
        return {job["jobId"]: seen(job) for job in self._described(ids)}

    def read(self, job: str, log: str, token: str) -> Page:
        """The next lines of the newest attempt's stream, or what is left of the one that was followed before it."""
        stream, place = unpacked(token)
        newest = log or self._stream(job)
        if not (stream or newest):
            return Page([], "")  # it has not begun
        page, place = self._events(stream or newest, place)
        if not page and stream and newest and stream != newest:
            stream, (page, place) = newest, self._events(newest, "")
        return Page(page, packed(stream or newest, place))

    def stop(self, job: str, why: str) -> None:
        """Terminate it: a container gets SIGTERM, saves, and is killed after 110 s; a job that waits is gone."""
        self._call("batch", "terminate_job", jobId=job, reason=CANCELLED + why)

    def _stream(self, job: str) -> str:
        """The log of the newest attempt, of several nodes the main one's."""
        found = {one["jobId"]: stream(one) for one in self._described([job])}
        if not found.get(job):
            found |= {one["jobId"]: stream(one) for one in self._described([f"{job}#0"])}
        return found.get(job) or found.get(f"{job}#0", "")

    def _events(self, stream: str, place: str) -> tuple[list[str], str]:
        more = {"nextToken": place} if place else {}
        try:
            answer = self._call(
                "logs",
                "get_log_events",
                logGroupName=self._logs,
                logStreamName=stream,
                startFromHead=True,
                limit=PAGE,
                **more,
            )
        except NotFoundError:
            return [], ""  # the container has not written anything yet
        return [event["message"].rstrip("\r\n") for event in answer["events"]], answer["nextForwardToken"]

    def _described(self, ids: Sequence[str]) -> Iterator[Answer]:
        for first in range(0, len(ids), MOST):
            yield from self._call("batch", "describe_jobs", jobs=list(ids[first : first + MOST]))["jobs"]

    def _call(self, service: str, action: str, **arguments: Any) -> Answer:  # noqa: ANN401 - boto3 ships no types
        import boto3  # 0.2 s, which a list of old trainings need not wait for
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if service not in self._clients:
                self._clients[service] = boto3.client(service, config=Config(**PATIENCE))
            answer: Answer = getattr(self._clients[service], action)(**arguments)
        except ClientError as exc:
            if exc.response["Error"]["Code"] == "ResourceNotFoundException":
                raise NotFoundError(f"{service} knows nothing of that: {words(exc)}.") from exc
            raise UnavailableError(f"{service} did not {action}: {words(exc)}.", retry_after=5) from exc
        except BotoCoreError as exc:
            raise UnavailableError(f"{service} did not {action}: {words(exc)}.", retry_after=5) from exc
        return answer


def job_name(run: str) -> str:
    """A run's name as Batch takes it: letters, digits, - and _."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", run)


def seen(job: Answer) -> Look:
    """A job as DescribeJobs, or the event of its end, tells of it."""
    word = job["status"]
    begun = len(job.get("attempts") or []) + (1 if word == "RUNNING" else 0)
    return Look(PHASES.get(word, "waiting"), word, reason(job), begun, stream(job))


def reason(job: Answer) -> str:
    """Why a job is as it is: the container's word, if it had one, behind Batch's own."""
    container = job.get("container") or {}
    code = container.get("exitCode")
    words = [job.get("statusReason"), container.get("reason"), f"exit code {code}" if code is not None else None]
    return "; ".join(dict.fromkeys(word for word in words if word))


def stream(job: Answer) -> str:
    """The log of the newest attempt that has one."""
    tries = [attempt.get("container") or {} for attempt in job.get("attempts") or []]
    known = [one.get("logStreamName") or "" for one in (*tries, job.get("container") or {})]
    return next((name for name in reversed(known) if name), "")


def packed(stream: str, place: str) -> str:
    """A stream and a place in it as one word for URLs."""
    return base64.urlsafe_b64encode(msgspec.json.encode([stream, place])).decode()


def unpacked(token: str) -> tuple[str, str]:
    """The stream and the place in it; both empty at the start."""
    if not token:
        return "", ""
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token), type=tuple[str, str])
    except ValueError as exc:  # binascii's and msgspec's are ones
        raise InvalidInputError(f"token is {token[:60]!r}, which is not one that a log's `next` gave.") from exc
