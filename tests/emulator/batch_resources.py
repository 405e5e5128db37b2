"""CloudFormation's resources of Batch: environments, queues and definitions with revisions, in ministack's own records.

Properties become Batch's requests by the model of its API, which botocore has: `MaxvCpus: "32"` is `maxvCpus: 32`.
"""

import base64
import json
import re
from typing import Any

from botocore.session import get_session
from ministack.services import batch, ec2
from ministack.services.cloudformation import provisioners

from tests.emulator.batch_jobs import Document

Created = tuple[str, dict[str, str]]
STOP_S = 30  # between SIGTERM and SIGKILL, of an ECS agent that is told nothing
UNKNOWN_TO_CREATION = ("ComputeEnvironmentName", "JobQueueName", "JobDefinitionName", "Tags")


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
    registered = _call(batch._register_job_definition, "RegisterJobDefinition", "jobDefinitionName", name, props)
    batch._job_definitions[name][-1].update(
        to_request("RegisterJobDefinition", props)
    )  # of which ministack keeps little
    return registered["jobDefinitionArn"], {"JobDefinitionArn": registered["jobDefinitionArn"]}


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
    status, _, body = function({**to_request(operation, props), named: name})
    answered: Document = json.loads(body)
    if status != 200:
        raise ValueError(f"{operation} of {name}: {answered.get('message', answered)}")
    return answered


def to_request(operation: str, props: Document) -> Document:
    """Turn a resource's properties into the request that creates it."""
    shape = get_session().get_service_model("batch").operation_model(operation).input_shape
    own = {name: value for name, value in props.items() if name not in UNKNOWN_TO_CREATION}
    request: Document = convert_value(own, shape)
    return request


def convert_value(value: Any, shape: Any) -> Any:  # noqa: ANN401 - any value, by botocore's shape of it
    """Turn a property into what the API takes: names begin small, numbers are numbers, keys of maps stay."""
    if shape.type_name == "structure":
        return {
            small: convert_value(one, shape.members[small])
            for name, one in value.items()
            if (small := name[0].lower() + name[1:]) in shape.members
        }
    if shape.type_name == "list":
        return [convert_value(one, shape.member) for one in value]
    if shape.type_name in ("integer", "long"):
        return int(value)
    if shape.type_name == "boolean":
        return str(value).lower() == "true"
    return str(value) if shape.type_name == "string" else value


def read_stop_seconds(environment: Document) -> int:
    """Read how long the ECS agents of an environment's machines wait after SIGTERM, from their launch template."""
    named = (environment.get("computeResources") or {}).get("launchTemplate") or {}
    template = ec2._launch_templates.get(named.get("launchTemplateId", ""), {})
    for version in reversed(template.get("Versions", [])):
        text = base64.b64decode(version["LaunchTemplateData"].get("UserData", "")).decode()
        if found := re.search(r"ECS_CONTAINER_STOP_TIMEOUT=(\d+)s", text):
            return int(found[1])
    return STOP_S
