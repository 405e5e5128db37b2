"""Events that start the batch function, over EventBridge's default bus.

boto3 is imported with the first event. On a laptop AWS_ENDPOINT_URL_EVENTBRIDGE sends the call to the local gateway.
"""

import json
from typing import Any

from pilotlight.contracts.batch import is_batch_target
from pilotlight.errors import UnavailableError, format_cause

INFERENCE_DETAIL_TYPE = "Pilotlight Inference"  # the detail-type to which the batch function is subscribed


class EventBus:
    """The default bus of the account, to which all of its stacks listen.

    An event names the stack's `resource`, its bucket by ARN, as S3's own events do; the rules of the other stacks do
    not match it.
    """

    def __init__(self, client: Any = None, resource: str = "") -> None:  # noqa: ANN401 - boto3 ships no types
        self._resources = [resource] if resource else []
        self._client = client

    def publish(self, source: str, job: str) -> None:
        """Publish a file by its URI, or a batch by its target; `UnavailableError` if EventBridge does not accept it."""
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        detail = {"batch" if is_batch_target(job) else "s3_uri": job}
        entry = {
            "Source": source,
            "DetailType": INFERENCE_DETAIL_TYPE,
            "Resources": self._resources,
            "Detail": json.dumps(detail),
        }
        try:
            self._client = self._client or boto3.client("events")
            response = self._client.put_events(Entries=[entry])
        except (BotoCoreError, ClientError) as exc:
            raise UnavailableError(
                f"EventBridge did not take the word to go on with {job}: {format_cause(exc)}."
            ) from exc
        if response["FailedEntryCount"]:
            raise UnavailableError(f"EventBridge did not take the word to go on with {job}: {response['Entries'][0]}.")
