"""Keys of API Gateway that meter ours: made in a usage plan, read, and deleted.

The caller passes a boto3 client; the module imports boto3 nowhere. Such a key counts requests and opens nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from pilotlight.errors import InvalidInputError, UnavailableError

UNKNOWN_CODES = ("NotFoundException", "BadRequestException")


class GatewayKey(NamedTuple):
    """A key of API Gateway: its id, and the value by which the authorizer names it."""

    id: str
    value: str


def create_gateway_key(gateway: Any, name: str, plan: str) -> GatewayKey:  # noqa: ANN401 - boto3 ships no types
    """Create a key in a usage plan; leave none behind if the plan does not take it."""
    with _translate_errors(f"usage plan {plan!r}"):
        gateway.get_usage_plan(usagePlanId=plan)
        made = gateway.create_api_key(name=name, enabled=True, description="Meters a key of Pilotlight; opens nothing.")
        try:
            gateway.create_usage_plan_key(usagePlanId=plan, keyId=made["id"], keyType="API_KEY")
        except Exception:  # raised again: whatever it is, no key stays outside a plan
            gateway.delete_api_key(apiKey=made["id"])
            raise
    return GatewayKey(made["id"], made["value"])


def get_gateway_key(gateway: Any, key_id: str) -> GatewayKey:  # noqa: ANN401
    """Get a key that is there, such as the output Key of infra/tenant.yaml."""
    with _translate_errors(f"API Gateway key {key_id!r}"):
        return GatewayKey(key_id, gateway.get_api_key(apiKey=key_id, includeValue=True)["value"])


def delete_gateway_key(gateway: Any, key_id: str) -> None:  # noqa: ANN401
    """Delete a key; do nothing if there is none."""
    try:
        with _translate_errors(f"API Gateway key {key_id!r}"):
            gateway.delete_api_key(apiKey=key_id)
    except InvalidInputError:
        return


@contextmanager
def _translate_errors(what: str) -> Iterator[None]:
    """Turn boto3's errors into Pilotlight's; only called once boto3 is there."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as exc:
        if exc.response["Error"]["Code"] in UNKNOWN_CODES:
            raise InvalidInputError(f"There is no {what} in this account and region: {exc}.") from exc
        raise UnavailableError(f"API Gateway refused what was asked about the {what}: {exc}.") from exc
    except BotoCoreError as exc:
        raise UnavailableError(f"API Gateway cannot be asked about the {what}: {exc}.") from exc
