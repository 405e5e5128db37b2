"""Stacks of CloudFormation: found, listed, removed, and what is said of a change that failed."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from pilotlight.deployment import removal
from pilotlight.deployment.aws_clients import open_aws_client
from pilotlight.deployment.removal import find_kept_resources
from pilotlight.deployment.stack import (
    STACK_TYPE,
    CloudFormationStack,
    StackEvent,
    check_stack_name,
    clean_reason,
    explain_failure,
    find_stack,
    get_stack,
    list_events,
    list_resources,
)
from pilotlight.errors import InvalidInputError, NotFoundError, UnavailableError

BEGAN = datetime(2026, 11, 30, tzinfo=UTC)
ROLE_REASON = (
    'Resource handler returned message: "CloudWatch Logs role ARN must be set in account settings to enable logging '
    '(Service: ApiGateway, Status Code: 400, Request ID: 1-2)" (RequestToken: 3, HandlerErrorCode: InvalidRequest)'
)
FAILED = {
    "Timestamp": BEGAN, "StackId": "arn:stack", "LogicalResourceId": "Policy", "ResourceType": "AWS::S3::BucketPolicy",
    "ResourceStatus": "DELETE_FAILED", "ResourceStatusReason": "Access denied.",
}  # fmt: skip


def event(logical_id: str, kind: str, status: str, reason: str = "", after: int = 0) -> StackEvent:
    return StackEvent(BEGAN + timedelta(seconds=after), "arn:stack", logical_id, "", kind, status, reason)


def test_the_first_resource_that_failed_is_told() -> None:
    """Neither what was cancelled because of it, nor the nested stack in which it is."""
    found = explain_failure([
        event("Role", "AWS::IAM::Role", "CREATE_COMPLETE"),
        event("Table", "AWS::S3::Bucket", "CREATE_FAILED", "Resource creation cancelled"),
        event("Monitoring", STACK_TYPE, "CREATE_FAILED", "Embedded stack was not successfully created"),
        event("Stage", "AWS::ApiGateway::Stage", "CREATE_FAILED", ROLE_REASON),
        event("Other", "AWS::SQS::Queue", "CREATE_FAILED", "later"),
    ])  # fmt: skip
    assert found == (
        "Stage (AWS::ApiGateway::Stage) could not be created: CloudWatch Logs role ARN must be set in account settings "
        "to enable logging. Deploy with --parameter AccessLogs=create, or off."
    )


def test_a_nested_stack_is_told_if_nothing_else_is() -> None:
    nested = event("Training", STACK_TYPE, "UPDATE_FAILED", "Parameter validation failed")
    assert explain_failure([nested]) == f"Training ({STACK_TYPE}) could not be updated: Parameter validation failed."
    assert explain_failure([event("Role", "AWS::IAM::Role", "CREATE_COMPLETE")]) is None


def test_a_reason_without_wrapping_stays() -> None:
    assert clean_reason("The bucket is not empty.") == "The bucket is not empty"


def test_a_stack_is_found_by_name(cloudformation: Any, stack_name: str) -> None:  # noqa: ANN401 - boto3 ships no types
    stack = get_stack(cloudformation, stack_name)
    assert (stack.status, stack.parameters["Auth"], stack.is_ours, stack.is_busy) == (
        "CREATE_COMPLETE",
        "keys",
        True,
        False,
    )
    assert stack.outputs["Bucket"].startswith(stack_name)
    assert find_stack(cloudformation, "no-such-stack") is None
    with pytest.raises(NotFoundError, match=r"no stack 'no-such-stack'.*`pilotlight deploy` makes one"):
        get_stack(cloudformation, "no-such-stack")
    types = {one.logical_id: one.type for one in list_resources(cloudformation, stack_name)}
    assert types["ModelBucket"] == "AWS::S3::Bucket"
    assert {one.logical_id for one in list_events(cloudformation, stack.id)} >= {stack_name}  # moto tells no more


def test_a_stack_of_somebody_else_is_not_ours(cloudformation: Any) -> None:  # noqa: ANN401
    parameters = {"Auth": "keys"}
    assert not CloudFormationStack("web", "arn:web", "CREATE_COMPLETE", parameters, {"Url": "x", "Bucket": "y"}).is_ours
    assert CloudFormationStack("web", "arn:web", "UPDATE_IN_PROGRESS", parameters, {}).is_busy


@pytest.mark.parametrize("name", ["", "1a", "a_b", "a" * 53, "https://a", "ä"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="is no name of a stack"):
        check_stack_name(name)


def test_what_stays_is_told_with_what_it_holds_and_goes_by_hand(cloudformation: Any, stack_name: str) -> None:  # noqa: ANN401
    stack = get_stack(cloudformation, stack_name)
    s3, bucket = boto3.client("s3"), stack.outputs["Bucket"]
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for content in (b"1", b"22"):
        s3.put_object(Bucket=bucket, Key="models/a", Body=content)
    s3.delete_object(Bucket=bucket, Key="models/a")
    kept, gone = find_kept_resources(open_aws_client, stack.id)
    held = {one.resource.logical_id: one.content for one in kept}
    assert held == {
        "ModelBucket": "2 objects with their older versions, 0.0 MB",
        "DeadLetters": "about 0 messages",
        "Repository": "0 images",
    }
    assert gone == 4
    by_name = {one.resource.logical_id: one for one in kept}
    assert f"Bucket('{bucket}')" in by_name["ModelBucket"].command
    for one in kept:
        removal.remove_kept(open_aws_client, one)
    assert bucket not in [one["Name"] for one in s3.list_buckets()["Buckets"]]
    with pytest.raises(NotFoundError, match=f"There is no resource {bucket}"):
        removal.remove_kept(open_aws_client, by_name["ModelBucket"])


def test_a_stack_goes_with_its_uploads_and_with_nobody_elses(
    cloudformation: Any,  # noqa: ANN401
    stack_name: str,
) -> None:
    bucket = f"uploads-{stack_name}"
    template = {"Resources": {"B": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": bucket}}},
                "Outputs": {"SourceBucket": {"Value": bucket}}}  # fmt: skip
    cloudformation.create_stack(StackName=removal.SAM_STACK, TemplateBody=json.dumps(template))
    s3 = boto3.client("s3")
    for key in (f"{stack_name}/code", f"{stack_name}-two/code"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"code")
    removal.delete_stack(cloudformation, get_stack(cloudformation, stack_name), lambda _: None)
    removal.remove_uploads(open_aws_client, stack_name)
    assert find_stack(cloudformation, stack_name) is None
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [f"{stack_name}-two/code"]
    removal.empty_bucket(s3, bucket)
    cloudformation.delete_stack(StackName=removal.SAM_STACK)


class StuckCloudFormation:
    """A stack whose bucket policy cannot be deleted."""

    looks = 0

    def delete_stack(self, StackName: str) -> None:  # noqa: N803 - boto3's names
        """Take the order."""

    def describe_stacks(self, StackName: str) -> dict[str, Any]:  # noqa: N803
        return {"Stacks": [{"StackName": "models", "StackId": "arn:stack", "StackStatus": "DELETE_FAILED"}]}

    def get_paginator(self, name: str) -> "StuckCloudFormation":
        return self

    def paginate(self, StackName: str) -> list[dict[str, Any]]:  # noqa: N803
        """Nothing has happened when it is asked first."""
        self.looks += 1
        return [{"StackEvents": [FAILED] if self.looks > 1 else []}]


def test_a_stack_that_cannot_be_deleted_says_why() -> None:
    stack = CloudFormationStack("models", "arn:stack", "CREATE_COMPLETE", {}, {})
    with pytest.raises(
        UnavailableError, match=r"Policy \(AWS::S3::BucketPolicy\) could not be deleted: Access denied\."
    ):
        removal.delete_stack(StuckCloudFormation(), stack, lambda _: None)
