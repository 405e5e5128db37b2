"""CloudFormation's resources of Batch, in ministack's own records: environments, queues, definitions with revisions."""

import base64
import json
import re
from typing import Any

from ministack.services import batch, ec2
from ministack.services.cloudformation import provisioners

from tests.emulator.batch_jobs import Document
from tests.emulator.batch_requests import to_request

Created = tuple[str, dict[str, str]]
STOP_S = 30  # between SIGTERM and SIGKILL, of an ECS agent that is told nothing


def extend() -> None:
    """Add these resources to the running ministack."""
    provisioners._RESOURCE_HANDLERS.update({
        "AWS::Batch::ComputeEnvironment": {"create": create_environment, "delete": delete_environment},
        "AWS::Batch::JobQueue": {"create": create_queue, "delete": delete_queue},
        "AWS::Batch::JobDefinition": {"create": create_definition, "delete": deregister_definition},
    })  # fmt: skip


def create_environment(logical_id: str, props: Document, stack_name: str) -> Created:
    """Create a compute environment, or change it."""
    name = props.get("ComputeEnvironmentName") or provisioners._physical_name(stack_name, logical_id)
    batch._compute_envs.pop(name, None)
    arn = _call(batch._create_compute_environment, "CreateComputeEnvironment", "computeEnvironmentName", name, props)
    return arn["computeEnvironmentArn"], {"ComputeEnvironmentArn": arn["computeEnvironmentArn"]}


def create_queue(logical_id: str, props: Document, stack_name: str) -> Created:
    """Create a queue of jobs, or change it."""
    name = props.get("JobQueueName") or provisioners._physical_name(stack_name, logical_id)
    batch._job_queues.pop(name, None)
    arn = _call(batch._create_job_queue, "CreateJobQueue", "jobQueueName", name, props)["jobQueueArn"]
    return arn, {"JobQueueArn": arn}


def create_definition(logical_id: str, props: Document, stack_name: str) -> Created:
    """Register the next revision of a job definition; former ones stay, as `SkipDeregisterOnUpdate` says."""
    name = props.get("JobDefinitionName") or provisioners._physical_name(stack_name, logical_id)
    registered = register_definition({**to_request("RegisterJobDefinition", props), "jobDefinitionName": name})
    return registered["jobDefinitionArn"], {"JobDefinitionArn": registered["jobDefinitionArn"]}


def register_definition(request: Document) -> Document:
    """Register the next revision of a definition, with all that it says, of which ministack keeps little."""
    registered = _read(batch._register_job_definition(request), "RegisterJobDefinition")
    batch._job_definitions[request["jobDefinitionName"]][-1].update(request)
    return registered


def delete_environment(physical_id: str, props: Document) -> None:
    """Delete a compute environment."""
    batch._compute_envs.pop(physical_id.rpartition("/")[2], None)


def delete_queue(physical_id: str, props: Document) -> None:
    """Delete a queue."""
    batch._job_queues.pop(physical_id.rpartition("/")[2], None)


def deregister_definition(physical_id: str, props: Document) -> None:
    """Make all revisions of a definition inactive."""
    for revision in batch._job_definitions.get(physical_id.rpartition("/")[2].partition(":")[0], []):
        revision["status"] = "INACTIVE"


def _call(function: Any, operation: str, named: str, name: str, props: Document) -> Document:  # noqa: ANN401 - ministack has no types
    return _read(function({**to_request(operation, props), named: name}), f"{operation} of {name}")


def _read(answer: tuple[int, Document, bytes], what: str) -> Document:
    answered: Document = json.loads(answer[2])
    if answer[0] != 200:
        raise ValueError(f"{what}: {answered.get('message', answered)}")
    return answered


def read_stop_seconds(environment: Document) -> int:
    """Read how long the ECS agents of an environment's machines wait after SIGTERM, from their launch template."""
    named = (environment.get("computeResources") or {}).get("launchTemplate") or {}
    template = ec2._launch_templates.get(named.get("launchTemplateId", ""), {})
    for version in reversed(template.get("Versions", [])):
        text = base64.b64decode(version["LaunchTemplateData"].get("UserData", "")).decode()
        if found := re.search(r"ECS_CONTAINER_STOP_TIMEOUT=(\d+)s", text):
            return int(found[1])
    return STOP_S
