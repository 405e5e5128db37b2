"""A small stack on moto's CloudFormation that has what the code looks for in Pilotlight's."""

import uuid
from typing import Any

import boto3
import pytest

from tests.core.deployment.small_stack import TEMPLATE


@pytest.fixture
def cloudformation(aws_environment: dict[str, str]) -> Any:  # noqa: ANN401 - boto3 ships no types
    return boto3.client("cloudformation")


@pytest.fixture
def stack_name(cloudformation: Any) -> str:  # noqa: ANN401
    """The name of a new stack, which is there."""
    name = f"models-{uuid.uuid4().hex[:8]}"
    cloudformation.create_stack(StackName=name, TemplateBody=TEMPLATE)
    return name
