"""Delete a stack; what it leaves behind, by the DeletionPolicy of its own templates, and how that goes too."""

import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from pilotlight.deployment.aws_clients import OpenClient, translate_aws_errors
from pilotlight.deployment.stack import (
    STACK_TYPE,
    CloudFormationStack,
    DeployedResource,
    describe_progress,
    explain_failure,
    find_last_event,
    find_stack,
    list_events,
    list_resources,
)
from pilotlight.errors import NotFoundError, UnavailableError
from pilotlight.local.intrinsics import TemplateLoader

BUCKET, QUEUE, REPOSITORY = "AWS::S3::Bucket", "AWS::SQS::Queue", "AWS::ECR::Repository"
GOES_WITH_ITS_FUNCTION = "AWS::Lambda::Version"  # SAM says Retain, so that an update keeps the version before it
SAM_STACK = "aws-sam-cli-managed-default"  # of the SAM CLI, whose bucket takes what `sam deploy` uploads
POLL_S = 3.0
MAX_COUNTED = 100_000  # objects, whose counting takes a hundred requests
# How each kind goes, by its physical id. A role that other APIs may use by then has no command: its owner decides.
COMMANDS = {
    BUCKET: "python -c \"import boto3; b = boto3.resource('s3').Bucket('{id}'); "
    'b.object_versions.delete(); b.delete()"',
    QUEUE: "aws sqs delete-queue --queue-url {quoted}",
    REPOSITORY: "aws ecr delete-repository --force --repository-name {quoted}",
}


@dataclass(frozen=True)
class KeptResource:
    """A resource that outlives its stack; `content` is what would be lost with it."""

    resource: DeployedResource
    content: str

    @property
    def command(self) -> str:
        """The command by which it goes; empty if that is for its owner to judge."""
        identifier = self.resource.physical_id
        return COMMANDS.get(self.resource.type, "").format(id=identifier, quoted=shlex.quote(identifier))


def find_kept_resources(open_client: OpenClient, stack: str) -> tuple[list[KeptResource], int]:
    """Find what would stay, and count the resources that would go, those of nested stacks included."""
    cloudformation = open_client("cloudformation")
    resources = list(list_resources(cloudformation, stack))
    retained = {each: set(find_retained(cloudformation, each)) for each in {one.stack for one in resources}}
    kept = [one for one in resources if one.logical_id in retained[one.stack] and one.type != GOES_WITH_ITS_FUNCTION]
    gone = sum(one.type != STACK_TYPE for one in resources) - len(kept)
    return [KeptResource(one, describe_content(open_client, one)) for one in kept], gone


def find_retained(cloudformation: Any, stack: str) -> Iterator[str]:  # noqa: ANN401 - boto3 ships no types
    """Find the logical ids of the resources that a stack's template tells CloudFormation to keep."""
    with translate_aws_errors(f"the template of {stack!r}"):
        body = cloudformation.get_template(StackName=stack, TemplateStage="Processed")["TemplateBody"]
    template: Mapping[str, Any] = yaml.load(body, TemplateLoader) if isinstance(body, str) else body  # noqa: S506 - safe
    for logical_id, resource in template["Resources"].items():
        if str(resource.get("DeletionPolicy", "Delete")).startswith("Retain"):
            yield logical_id


def describe_content(open_client: OpenClient, resource: DeployedResource) -> str:
    """Describe what a resource holds: objects and bytes, messages, images."""
    identifier = resource.physical_id
    try:
        with translate_aws_errors(f"the content of {identifier}"):
            if resource.type == BUCKET:
                return count_objects(open_client("s3"), identifier)
            if resource.type == QUEUE:
                asked = {"QueueUrl": identifier, "AttributeNames": ["ApproximateNumberOfMessages"]}
                count = open_client("sqs").get_queue_attributes(**asked)["Attributes"]["ApproximateNumberOfMessages"]
                return f"about {count} messages"
            if resource.type == REPOSITORY:
                pages = open_client("ecr").get_paginator("describe_images").paginate(repositoryName=identifier)
                return f"{sum(len(page['imageDetails']) for page in pages)} images"
    except NotFoundError:
        return "already gone"
    except UnavailableError as exc:
        return f"unknown: {exc}"
    return ""


def count_objects(s3: Any, bucket: str) -> str:  # noqa: ANN401
    """Count the objects of a bucket, with older versions of them, and their bytes."""
    objects = size = 0
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        versions = page.get("Versions", [])
        objects, size = objects + len(versions), size + sum(one["Size"] for one in versions)
        if objects >= MAX_COUNTED:
            return f"more than {objects:,} objects with their older versions, more than {size / 1e6:,.1f} MB"
    return f"{objects:,} objects with their older versions, {size / 1e6:,.1f} MB"


def remove_kept(open_client: OpenClient, kept: KeptResource) -> None:
    """Remove a resource with all that it holds; `NotFoundError` if it is gone already."""
    identifier = kept.resource.physical_id
    with translate_aws_errors(f"the resource {identifier}"):
        if kept.resource.type == BUCKET:
            empty_bucket(open_client("s3"), identifier)
            open_client("s3").delete_bucket(Bucket=identifier)
        elif kept.resource.type == QUEUE:
            open_client("sqs").delete_queue(QueueUrl=identifier)
        elif kept.resource.type == REPOSITORY:
            open_client("ecr").delete_repository(repositoryName=identifier, force=True)


def empty_bucket(s3: Any, bucket: str, prefix: str = "") -> None:  # noqa: ANN401
    """Delete every version and marker below a prefix, a thousand in a request; `UnavailableError` if one stays."""
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        entries = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        if not entries:
            continue
        named = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in entries]
        failed = s3.delete_objects(Bucket=bucket, Delete={"Objects": named, "Quiet": True}).get("Errors", [])
        if failed:
            first = failed[0]
            raise UnavailableError(
                f"{len(failed)} objects of {bucket} stay: {first['Key']}: {first.get('Message', '')}"
            )


def delete_stack(cloudformation: Any, stack: CloudFormationStack, tell: Callable[[str], None]) -> None:  # noqa: ANN401
    """Delete a stack, and wait until it is gone; raise `UnavailableError` with the first resource that stays."""
    before = find_last_event(cloudformation, stack.id)
    with translate_aws_errors(f"the stack {stack.name!r}"):
        cloudformation.delete_stack(StackName=stack.id)
    while (left := find_stack(cloudformation, stack.id)) is not None and left.status != "DELETE_COMPLETE":
        if left.status == "DELETE_FAILED":
            reason = explain_failure(list_events(cloudformation, stack.id, before)) or "AWS gives no reason."
            raise UnavailableError(f"{stack.name} could not be deleted. {reason}")
        tell(describe_progress(cloudformation, stack.id, before) or "begins")
        time.sleep(POLL_S)


def remove_uploads(open_client: OpenClient, stack: str) -> None:
    """Remove the code that `pilotlight deploy` has uploaded for a stack to SAM's own bucket; do nothing without one."""
    managed = find_stack(open_client("cloudformation"), SAM_STACK)
    if managed is not None and (bucket := managed.outputs.get("SourceBucket")):
        with translate_aws_errors(f"the uploads of {stack!r}"):
            empty_bucket(open_client("s3"), bucket, f"{stack}/")
