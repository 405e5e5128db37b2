"""Containers of Batch's jobs on this machine's Docker: started as ECS starts them on EC2, followed, and stopped.

A GPU that is required is passed over, since this machine has none. What ECS's own agent does with the execution role is
judged by that role's policies: the image's layers, and the stream of the log.
"""

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache

import docker
import requests
from docker.errors import APIError, ImageNotFound, NotFound
from docker.models.containers import Container
from ministack.core import container_reaper
from ministack.services import cloudwatch_logs

from tests.emulator import batch_jobs, batch_roles
from tests.emulator.batch_jobs import AttemptEnd, Document

REGISTRY = ".dkr.ecr."  # in the names of images whose layers the execution role must be allowed to read
PULL_ACTIONS = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
MEBIBYTE = 1 << 20
GONE_STATES = ("removing", "dead")  # of a container that Docker was told to remove while it ran


@dataclass
class Task:
    """One container of one attempt of a job."""

    job: Document  # or of one node of it
    id: str
    variables: dict[str, str]  # beyond those of the definition
    log_stream: str
    instance: str = field(default_factory=batch_jobs.name_instance)
    container: Container | None = None
    log: threading.Thread | None = None

    @property
    def properties(self) -> Document:
        """What the job's definition and submission say of the container."""
        found: Document = self.job["container"]
        return found

    @property
    def address(self) -> str:
        """The container's address, where other containers reach it."""
        assert self.container is not None
        self.container.reload()
        networks = self.container.attrs["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])


@cache
def connect() -> docker.DockerClient:
    """Connect to Docker, once for all jobs; each follows its log and waits at the same time."""
    return docker.from_env(timeout=120, max_pool_size=50)


def start(task: Task) -> AttemptEnd | None:
    """Start a task's container and its log; return how the attempt ended if that fails."""
    image = task.properties["image"]
    if problem := _find_pull_problem(image, task.properties):
        return AttemptEnd(batch_jobs.TASK_NOT_STARTED, f"CannotPullContainerError: {problem}")
    if problem := _open_log(task):
        return AttemptEnd(batch_jobs.TASK_NOT_STARTED, f"CannotStartContainerError: {problem}")
    try:
        task.container = connect().containers.create(image, **_build_options(task))
        task.container.start()
    except APIError as exc:
        return AttemptEnd(batch_jobs.TASK_NOT_STARTED, f"CannotStartContainerError: {exc.explanation}")
    task.log = threading.Thread(target=_forward_log, args=(task,), daemon=True)
    task.log.start()
    return None


def _find_pull_problem(image: str, properties: Document) -> str:
    role, (repository, _, _) = properties.get("executionRoleArn", ""), image.partition(":")
    if REGISTRY in repository:
        name = repository.partition("/")[2]
        checks = [("ecr:GetAuthorizationToken", "*")]
        checks += [(action, batch_roles.build_arn("ecr", f"repository/{name}")) for action in PULL_ACTIONS]
        if denied := batch_roles.find_denied(role, checks):
            return denied
    try:
        connect().images.get(image)
    except ImageNotFound:
        return f"Error response from daemon: manifest for {image} not found: manifest unknown"
    return ""


def _open_log(task: Task) -> str:
    group = _name_log_group(task)
    if not group:
        return ""
    stream = batch_roles.build_arn("logs", f"log-group:{group}:log-stream:{task.log_stream}")
    actions = ("logs:CreateLogStream", "logs:PutLogEvents")
    role = task.properties.get("executionRoleArn", "")
    if denied := batch_roles.find_denied(role, [(action, stream) for action in actions]):
        return f"failed to create Cloudwatch log stream: {denied}"
    cloudwatch_logs._create_log_stream({"logGroupName": group, "logStreamName": task.log_stream})
    return ""


def _name_log_group(task: Task) -> str:
    configured = task.properties.get("logConfiguration") or {}
    return (
        str(configured.get("options", {}).get("awslogs-group", "")) if configured.get("logDriver") == "awslogs" else ""
    )


def _build_options(task: Task) -> Document:
    """Build what Docker is told of a container."""
    properties = task.properties
    linux = properties.get("linuxParameters") or {}
    memory = f"{batch_jobs.find_resource(properties, 'MEMORY', batch_jobs.MEMORY_MB)}m"
    variables = {one["name"]: one["value"] for one in properties.get("environment", [])}
    return {
        "command": properties["command"],
        "environment": variables
        | batch_roles.find_credentials(properties.get("jobRoleArn", ""), task.id)
        | task.variables,
        "init": bool(linux.get("initProcessEnabled")),
        "shm_size": int(linux.get("sharedMemorySize", 64)) * MEBIBYTE,
        "mem_limit": memory,
        "memswap_limit": memory,  # no swap, as on ECS's machines
        "cpu_shares": batch_jobs.find_resource(properties, "VCPU", 1) * 1024,
        "read_only": bool(properties.get("readonlyRootFilesystem")),
        "privileged": bool(properties.get("privileged")),
        "extra_hosts": {"host.docker.internal": "host-gateway"},  # where the emulator is, for containers
        "labels": container_reaper.own_labels("batch", **{"batch.job": task.job["jobId"]}),
    }


def _forward_log(task: Task) -> None:
    """Write a container's output to its stream, line by line, until it ends."""
    assert task.container is not None
    place = {"logGroupName": _name_log_group(task), "logStreamName": task.log_stream}
    with suppress(NotFound), batch_roles.account_scope():  # the machine was taken away, and its log with it
        for lines in batch_jobs.split_lines(task.container.logs(stream=True, follow=True)):
            now_ms = int(time.time() * 1000)
            events = [{"timestamp": now_ms, "message": line} for line in lines]
            if place["logGroupName"]:
                cloudwatch_logs._put_log_events({**place, "logEvents": events})


def follow(task: Task, limit_s: float | None, stop_s: int) -> AttemptEnd:
    """Wait until a container has ended, and say how; after `limit_s` it is stopped."""
    assert task.container is not None
    late = not _wait(task.container, limit_s)
    if late:
        stop(task, stop_s)
    try:
        task.container.reload()
    except NotFound:
        return _end_with_host(task)
    state = task.container.attrs["State"]
    if state["Status"] in GONE_STATES:
        return _end_with_host(task)
    if task.log is not None:
        task.log.join()
    reason = batch_jobs.OUT_OF_MEMORY if state["OOMKilled"] else ""
    words = batch_jobs.TIMED_OUT if late else batch_jobs.TASK_EXITED
    return AttemptEnd(words, reason, state["ExitCode"], is_final=late)


def _wait(container: Container, limit_s: float | None) -> bool:
    """Return whether a container has ended within a time; no time is no limit."""
    try:
        container.wait(timeout=limit_s or 10**7)
    except NotFound:
        return True
    except (requests.exceptions.ConnectionError, requests.exceptions.ReadTimeout):  # how docker's client says it
        return False
    return True


def _end_with_host(task: Task) -> AttemptEnd:
    """End an attempt whose container is gone without an end of its own, as with a Spot machine that was reclaimed."""
    return AttemptEnd(f"Host EC2 (instance {task.instance}) terminated.")


def stop(task: Task, stop_s: int) -> None:
    """Send SIGTERM, and SIGKILL if the container still runs after so many seconds."""
    if task.container is not None:
        with suppress(NotFound, APIError):  # it has ended meanwhile
            task.container.stop(timeout=stop_s)


def remove(task: Task) -> None:
    """Remove a container that has ended."""
    if task.container is not None:
        with suppress(NotFound, APIError):  # somebody else removes it
            task.container.remove(force=True)


def build_variables(job: Document, environment: str, queue: str, attempt: int) -> dict[str, str]:
    """Build what Batch and ECS tell a container beyond its definition; on EC2 its region is not part of it."""
    return {
        "AWS_BATCH_JOB_ID": job["jobId"],
        "AWS_BATCH_JOB_ATTEMPT": str(attempt),
        "AWS_BATCH_CE_NAME": environment,
        "AWS_BATCH_JQ_NAME": queue,
        "AWS_EXECUTION_ENV": "AWS_ECS_EC2",
        "AWS_ENDPOINT_URL": f"http://host.docker.internal:{os.environ['GATEWAY_PORT']}",
    }
