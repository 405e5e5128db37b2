"""The parameters of a deployed stack, and a sentence where they cannot be read."""

from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from pilotlight.aws.stack_parameters import read_stack_parameters
from pilotlight.errors import InvalidInputError, UnavailableError

TEMPLATE = """
Parameters:
  Level: {Type: String, Default: basic}
Resources:
  Topic: {Type: "AWS::SNS::Topic"}
"""


class FakeCloudFormation:
    """A client that knows one stack, or whose calls fail."""

    def __init__(self, error: Exception | None = None, **parameters: str) -> None:
        self._error = error
        self._parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]

    def describe_stacks(self, StackName: str) -> dict[str, Any]:  # noqa: N803 - boto3's word
        if self._error:
            raise self._error
        return {"Stacks": [{"StackName": StackName, "Parameters": self._parameters}]}


def test_hidden_parameters_are_left_out() -> None:
    """CloudFormation answers **** for a parameter with NoEcho, which must not be taken for its value."""
    assert read_stack_parameters("told", FakeCloudFormation(Level="full", Secret="****")) == {"Level": "full"}


def test_parameters_of_a_stack_that_is_deployed(aws_environment: dict[str, str]) -> None:
    """Until it is deleted; then the error says so."""
    cloud = boto3.client("cloudformation")
    parameters = [{"ParameterKey": "Level", "ParameterValue": "full"}]
    cloud.create_stack(StackName="told", TemplateBody=TEMPLATE, Parameters=parameters)
    assert read_stack_parameters("told") == {"Level": "full"}
    cloud.delete_stack(StackName="told")
    with pytest.raises(InvalidInputError, match="There is no stack 'told' in this account and region"):
        read_stack_parameters("told")


@pytest.mark.parametrize(
    "error",
    [
        NoCredentialsError(),
        ClientError({"Error": {"Code": "AccessDenied", "Message": "not authorized"}}, "DescribeStacks"),
    ],
)
def test_an_aws_that_cannot_be_asked_is_told(error: Exception) -> None:
    with pytest.raises(UnavailableError, match="The stack 'told' cannot be read: "):
        read_stack_parameters("told", FakeCloudFormation(error))
