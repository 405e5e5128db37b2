"""The parameters of a stack that is deployed, by CloudFormation."""

from typing import Any

from pilotlight.errors import InvalidInputError, UnavailableError, format_cause

HIDDEN_VALUE = "****"  # what CloudFormation says of a parameter with NoEcho


def read_stack_parameters(name: str, client: Any = None) -> dict[str, str]:  # noqa: ANN401 - boto3 ships no types
    """Read the parameters of a stack in the region of the environment, without hidden ones.

    `InvalidInputError` if there is no such stack, `UnavailableError` if AWS cannot be asked.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        cloudformation = client or boto3.client("cloudformation")
        (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    except ClientError as exc:
        if exc.response["Error"]["Code"] == "ValidationError":
            raise InvalidInputError(
                f"There is no stack {name!r} in this account and region; aws cloudformation list-stacks names them."
            ) from exc
        raise UnavailableError(f"The stack {name!r} cannot be read: {format_cause(exc)}.") from exc
    except BotoCoreError as exc:
        raise UnavailableError(f"The stack {name!r} cannot be read: {format_cause(exc)}.") from exc
    found = {each["ParameterKey"]: each.get("ParameterValue", "") for each in stack.get("Parameters", ())}
    return {key: value for key, value in found.items() if value != HIDDEN_VALUE}
