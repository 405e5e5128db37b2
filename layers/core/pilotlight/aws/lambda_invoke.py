"""Start another Lambda function by an asynchronous event; boto3 is imported with the first one.

On a laptop AWS_ENDPOINT_URL_LAMBDA sends the same call to the local gateway.
"""

from typing import Any

import msgspec
from msgspec import Struct

from pilotlight.errors import UnavailableError, UnsupportedError, format_cause


class LambdaFunction:
    """A function by its name; the name is empty in a stack without it."""

    def __init__(self, name: str, client: Any = None) -> None:  # noqa: ANN401 - boto3 ships no types
        self.name = name
        self._client = client

    def invoke_async(self, **event: Struct) -> None:
        """Start the function with this event; `UnavailableError` if Lambda does not accept it."""
        if not self.name:
            raise UnsupportedError("No function is named here that promotes; `pilotlight promote --store URL` does it.")
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        self._client = self._client or boto3.client("lambda")
        payload = msgspec.json.encode(event)
        try:
            self._client.invoke(FunctionName=self.name, InvocationType="Event", Payload=payload)
        except (BotoCoreError, ClientError) as exc:
            raise UnavailableError(f"{self.name} could not be started: {format_cause(exc)}.") from exc
