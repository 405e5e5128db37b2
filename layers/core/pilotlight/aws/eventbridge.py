"""Word to the batch function that there is something to answer, by EventBridge's default bus.

boto3 is imported with the first word. On a laptop AWS_ENDPOINT_URL_EVENTBRIDGE leads the call to the local gateway.
"""

import json
from typing import Any

from pilotlight.errors import UnavailableError, words

INFERENCE = "Pilotlight Inference"  # detail-type of what the batch function is subscribed to


class Bus:
    """The default bus of the account."""

    def __init__(self, client: Any = None) -> None:  # noqa: ANN401 - boto3 ships no types
        self._client = client

    def tell(self, source: str, job: str) -> None:
        """Tell of a file by its address, or of a batch by its id; `UnavailableError` when the word is not taken."""
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        detail = {"batch" if job.startswith("batch_") else "s3_uri": job}
        entry = {"Source": source, "DetailType": INFERENCE, "Detail": json.dumps(detail)}
        try:
            self._client = self._client or boto3.client("events")
            answer = self._client.put_events(Entries=[entry])
        except (BotoCoreError, ClientError) as exc:
            raise UnavailableError(f"EventBridge did not take the word to go on with {job}: {words(exc)}.") from exc
        if answer["FailedEntryCount"]:
            raise UnavailableError(f"EventBridge did not take the word to go on with {job}: {answer['Entries'][0]}.")
