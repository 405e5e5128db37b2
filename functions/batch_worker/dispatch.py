"""What leaves by SQS, EventBridge and Step Functions: replies, this function's word to itself to go on, large files.

boto3 takes 200 ms to import, so it is imported when the first thing is to be sent.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pilotlight.aws.eventbridge import Bus
from pilotlight.errors import InvalidInputError, UnavailableError, words

SOURCE = "pilotlight.batch"
LARGEST = 256_000  # bytes of a reply; a larger answer is told by its place
GROUP = "pilotlight"  # of replies in a FIFO queue


class Sender:
    """Sends to the queues that are allowed, by ARN, and to the account's default bus."""

    def __init__(self, reply_queues: Sequence[str] = ()) -> None:
        self._allowed = frozenset(reply_queues)
        self._urls: dict[str, str] = {}
        self._clients: dict[str, Any] = {}
        self._bus = Bus()

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

    def resume(self, job: str) -> None:
        """Have the function invoked again for a file or a batch."""
        self._bus.tell(SOURCE, job)

    def spread(self, machine: str, job: str, stamp: str) -> bool:
        """Start the state machine for these bytes of a file; whether it works on them.

        It does not when it has worked on them before and failed: then they are answered one invocation after the other.
        """
        name = hashlib.sha256(f"{job} {stamp}".encode()).hexdigest()
        arguments = {"stateMachineArn": machine, "name": name, "input": json.dumps({"job": job})}
        return self._call("stepfunctions", "start_execution", unless="ExecutionAlreadyExists", **arguments) is not None

    def _url(self, queue: str) -> str:
        if queue not in self._urls:
            account, name = queue.split(":")[-2:]
            answer = self._call("sqs", "get_queue_url", QueueName=name, QueueOwnerAWSAccountId=account)
            self._urls[queue] = answer["QueueUrl"]
        return self._urls[queue]

    def _call(self, service: str, action: str, unless: str = "", **arguments: Any) -> Any:  # noqa: ANN401 - boto3 ships no types
        """What AWS answers; None for the error that is called `unless`."""
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if service not in self._clients:
                self._clients[service] = boto3.client(service)
            return getattr(self._clients[service], action)(**arguments)
        except (BotoCoreError, ClientError) as exc:
            if unless and isinstance(exc, ClientError) and exc.response["Error"]["Code"] == unless:
                return None
            raise UnavailableError(f"{service} did not {action}: {words(exc)}.") from exc
