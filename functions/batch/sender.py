"""What leaves by SQS and EventBridge: replies, and this function's word to itself to go on. Alone imports boto3.

boto3 takes 200 ms to import, so it is imported when the first thing is to be sent.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from functions.batch.occurrences import INFERENCE
from pilotlight.errors import InvalidInputError, UnavailableError

SOURCE = "pilotlight.batch"
LARGEST = 256_000  # bytes of a reply; a larger answer is told by its place
GROUP = "pilotlight"  # of replies in a FIFO queue


class Sender:
    """Sends to the queues that are allowed, by ARN, and to the account's default bus."""

    def __init__(self, reply_queues: Sequence[str] = ()) -> None:
        self._allowed = frozenset(reply_queues)
        self._urls: dict[str, str] = {}
        self._clients: dict[str, Any] = {}

    def check(self, queue: str) -> None:
        """`InvalidInputError` for a queue that the setting does not allow."""
        if queue not in self._allowed:
            known = ", ".join(sorted(self._allowed)) or "none"
            raise InvalidInputError(f"reply_to is {queue!r}; allowed by PILOTLIGHT_REPLY_QUEUES: {known}.")

    def reply(self, queue: str, key: str, answer: bytes, place: str) -> None:
        """Send an answer, or its place where it is too large, with the attribute `in_reply_to`."""
        text = answer.decode() if len(answer) <= LARGEST else json.dumps({"s3_uri": place})
        once = hashlib.sha256(key.encode()).hexdigest()
        more = {"MessageGroupId": GROUP, "MessageDeduplicationId": once} if queue.endswith(".fifo") else {}
        attributes = {"in_reply_to": {"DataType": "String", "StringValue": key}}
        url = self._url(queue)
        self._call("sqs", "send_message", QueueUrl=url, MessageBody=text, MessageAttributes=attributes, **more)

    def resume(self, uri: str) -> None:
        """Have the function invoked again for a file."""
        entry = {"Source": SOURCE, "DetailType": INFERENCE, "Detail": json.dumps({"s3_uri": uri})}
        answer = self._call("events", "put_events", Entries=[entry])
        if answer["FailedEntryCount"]:
            raise UnavailableError(f"EventBridge did not take the word to go on with {uri}: {answer['Entries'][0]}.")

    def _url(self, queue: str) -> str:
        if queue not in self._urls:
            account, name = queue.split(":")[-2:]
            answer = self._call("sqs", "get_queue_url", QueueName=name, QueueOwnerAWSAccountId=account)
            self._urls[queue] = answer["QueueUrl"]
        return self._urls[queue]

    def _call(self, service: str, action: str, **arguments: Any) -> Any:  # noqa: ANN401 - boto3 ships no types
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if service not in self._clients:
                self._clients[service] = boto3.client(service)
            return getattr(self._clients[service], action)(**arguments)
        except (BotoCoreError, ClientError) as exc:
            raise UnavailableError(f"{service} did not {action}: {exc}.") from exc
