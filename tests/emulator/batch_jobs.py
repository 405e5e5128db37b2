"""Jobs of AWS Batch as values: what a definition and a submission make of each other, and what a retry table decides.

It knows neither Docker nor ministack. Names are those of Batch's API. What is not said otherwise is from the AWS Batch
User Guide: Job states, Automated job retries, Multi-node parallel jobs, Job definition parameters.
"""

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

Document = dict[str, Any]  # of Batch's API
MEMORY_MB = 2048  # of a definition that says nothing
TASK_EXITED = "Essential container in task exited"
TASK_NOT_STARTED = "Task failed to start"
TIMED_OUT = "Job attempt duration exceeded timeout"
OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"


@dataclass(frozen=True)
class AttemptEnd:
    """How one attempt ended, in the words by which Batch's retry table judges it."""

    status_reason: str
    reason: str = ""  # of the container
    exit_code: int | None = None
    is_final: bool = False  # it was terminated or took too long, which Batch never retries


def decide_retry(strategy: Document, attempt: int, end: AttemptEnd) -> Literal["RETRY", "EXIT"]:
    """Decide whether a failed attempt, counted from 1, is followed by another: the first match counts.

    Where there are conditions and none matches, the job is retried.
    """
    if end.is_final or attempt >= int(strategy.get("attempts", 1)):
        return "EXIT"
    for condition in strategy.get("evaluateOnExit", []):
        if _matches(condition, end):
            return "EXIT" if condition["action"].upper() == "EXIT" else "RETRY"
    return "RETRY"


def _matches(condition: Document, end: AttemptEnd) -> bool:
    """Return whether all that a condition names is so; `*` matches a reason that is absent, too."""
    found = {
        "onStatusReason": end.status_reason,
        "onReason": end.reason,
        "onExitCode": "" if end.exit_code is None else str(end.exit_code),
    }
    return all(
        fnmatchcase(value.lower(), condition[name].lower()) for name, value in found.items() if name in condition
    )


def substitute_parameters(command: Sequence[str], parameters: Mapping[str, str]) -> list[str]:
    """Replace the words `Ref::name` of a command; one without a value stays as it is."""
    return [parameters.get(word.removeprefix("Ref::"), word) if word.startswith("Ref::") else word for word in command]


def override_container(container: Document, overrides: Document) -> Document:
    """Apply a submission's overrides of command, environment and resources to a definition's container."""
    environment = {one["name"]: one["value"] for one in container.get("environment", [])}
    environment |= {one["name"]: one["value"] for one in overrides.get("environment", [])}
    resources = {one["type"]: one["value"] for one in container.get("resourceRequirements", [])}
    resources |= {one["type"]: one["value"] for one in overrides.get("resourceRequirements", [])}
    return {
        **container,
        **({"command": overrides["command"]} if "command" in overrides else {}),
        "environment": [{"name": name, "value": value} for name, value in environment.items()],
        "resourceRequirements": [{"type": name, "value": value} for name, value in resources.items()],
    }


def find_node_range(ranges: Sequence[Document], node: int, nodes: int) -> Document:
    """Find the range of nodes that a node is of, as in `0:3`, `2:` or `1`; the last one that names it counts."""
    found: Document = {}
    for one in ranges:
        first, _, last = one["targetNodes"].partition(":")
        end = int(last) if last else nodes - 1 if ":" in one["targetNodes"] else int(first)
        if int(first or 0) <= node <= end:
            found = one
    return found


def find_resource(container: Document, kind: str, default: int) -> int:
    """Find how much of a resource a container requires: MB of MEMORY, or VCPU."""
    values: dict[str, str] = {one["type"]: one["value"] for one in container.get("resourceRequirements", [])}
    return int(values.get(kind, default))


def build_node_environment(node: int, nodes: int, main: int, main_address: str) -> dict[str, str]:
    """Build what a container of a multi-node job learns of the others; the main one's address is for the others."""
    told = {"JOB_MAIN_NODE_INDEX": str(main), "JOB_NODE_INDEX": str(node), "JOB_NUM_NODES": str(nodes)}
    if node != main:
        told["JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"] = main_address
    return {f"AWS_BATCH_{name}": value for name, value in told.items()}


def name_log_stream(container: Document, definition: str, task: str) -> str:
    """Name the stream of a task's output: prefix/default/task, and the definition's name where there is no prefix."""
    options = (container.get("logConfiguration") or {}).get("options") or {}
    return f"{options.get('awslogs-stream-prefix') or definition}/default/{task}"


def build_job(arn: str, queue: str, definition: Document, request: Document, now_ms: int) -> Document:
    """Build a job from its definition and its submission, as DescribeJobs answers it."""
    strategy = request.get("retryStrategy") or definition.get("retryStrategy") or {}
    job = {
        "jobArn": arn,
        "jobId": arn.partition("/")[2],
        "jobName": request["jobName"],
        "jobQueue": queue,
        "status": "SUBMITTED",
        "attempts": [],
        "createdAt": now_ms,
        "retryStrategy": {"attempts": int(strategy.get("attempts", 1)), "evaluateOnExit": [], **strategy},
        "dependsOn": [],
        "jobDefinition": definition["jobDefinitionArn"],
        "parameters": {**definition.get("parameters", {}), **request.get("parameters", {})},
        "timeout": request.get("timeout") or definition.get("timeout") or {},
        "tags": {"resourceArn": arn, **request.get("tags", {})},
        "propagateTags": request.get("propagateTags", definition.get("propagateTags", False)),
        "platformCapabilities": definition.get("platformCapabilities", []),
        "isCancelled": False,
        "isTerminated": False,
    }
    if definition["type"] == "multinode":
        return {**job, "nodeProperties": override_nodes(definition["nodeProperties"], request.get("nodeOverrides", {}))}
    container = override_container(definition["containerProperties"], request.get("containerOverrides", {}))
    return {**job, "container": resolve_command(container, job)}


def resolve_command(container: Document, job: Document) -> Document:
    """Return a job's container with the parameters in its command."""
    return {**container, "command": substitute_parameters(container.get("command", []), job["parameters"])}


def override_nodes(properties: Document, overrides: Document) -> Document:
    """Apply a submission's number of nodes, and what it overrides of their containers."""
    nodes = int({**properties, **overrides}["numNodes"])
    changes = {
        one["targetNodes"]: one.get("containerOverrides", {}) for one in overrides.get("nodePropertyOverrides", [])
    }
    ranges = [
        {**one, "container": override_container(one["container"], changes.get(one["targetNodes"], {}))}
        for one in properties["nodeRangeProperties"]
    ]
    return {**properties, "numNodes": nodes, "nodeRangeProperties": ranges}


def build_node_job(job: Document, node: int) -> Document:
    """Build the child of a multi-node job for one node, whose id is the job's with `#` and the node's number."""
    properties = job["nodeProperties"]
    found = find_node_range(properties["nodeRangeProperties"], node, properties["numNodes"])
    own = {name: value for name, value in job.items() if name not in ("nodeProperties", "timeout")}
    return {
        **own,
        "jobArn": f"{job['jobArn']}#{node}",
        "jobId": f"{job['jobId']}#{node}",
        "attempts": [],
        "container": resolve_command(found["container"], job),
        "nodeDetails": {"nodeIndex": node, "isMainNode": node == properties["mainNode"]},
    }


def split_lines(chunks: Iterable[bytes]) -> Iterator[list[str]]:
    """Split output into lines, of which a chunk may have several, or a part of one."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            yield [line.decode(errors="replace") for line in lines]
    if rest:
        yield [rest.decode(errors="replace")]


def check_submission(request: Document, definition: Document) -> str:
    """Say what is wrong with a submission; empty if nothing is."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", request.get("jobName", "")) is None:
        return f"Job name {request.get('jobName')!r} should match valid pattern of letters, digits, - and _."
    if request.get("dependsOn") or request.get("arrayProperties"):
        return "This emulator runs no arrays of jobs and no jobs that depend on others."
    other = {"multinode": "containerOverrides", "container": "nodeOverrides"}[definition["type"]]
    if other in request:
        return f"{other} is not for a job definition of type {definition['type']}."
    return ""


def name_instance() -> str:
    """Name an instance of EC2 that does not exist."""
    return f"i-{uuid.uuid4().hex[:17]}"
