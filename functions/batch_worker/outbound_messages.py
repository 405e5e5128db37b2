"""Send what leaves by SQS, EventBridge and Step Functions: replies, requests to resume, and large files.

boto3 takes 200 ms to import, so it is imported before the first call.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pilotlight.aws.eventbridge import EventBus
from pilotlight.errors import InvalidInputError, UnavailableError, format_cause

SOURCE = "pilotlight.batch"
MAX_REPLY_BYTES = 256_000  # bytes of a reply; for a larger answer, its URI is sent
MESSAGE_GROUP = "pilotlight"  # of replies in a FIFO queue


class Dispatcher:
    """Sends to the allowed queues, by ARN, to the account's default bus and to the state machine."""

    def __init__(self, reply_queues: Sequence[str] = (), event_resource: str = "") -> None:
        self._allowed = frozenset(reply_queues)
        self._urls: dict[str, str] = {}
        self._clients: dict[str, Any] = {}
        self._bus = EventBus(resource=event_resource)

    def check_reply_queue(self, queue: str) -> None:
        """Raise `InvalidInputError` for a queue that the setting does not allow."""
        if queue not in self._allowed:
            allowed = ", ".join(sorted(self._allowed)) or "none"
            raise InvalidInputError(f"reply_to is {queue!r}; allowed by PILOTLIGHT_REPLY_QUEUES: {allowed}.")

    def send_reply(self, queue: str, key: str, answer: bytes, uri: str) -> None:
        """Send an answer, or its URI if it is too large, with the attribute `in_reply_to`."""
        text = answer.decode() if len(answer) <= MAX_REPLY_BYTES else json.dumps({"s3_uri": uri})
        deduplication_id = hashlib.sha256(key.encode()).hexdigest()
        more = (
            {"MessageGroupId": MESSAGE_GROUP, "MessageDeduplicationId": deduplication_id}
            if queue.endswith(".fifo")
            else {}
        )
        attributes = {"in_reply_to": {"DataType": "String", "StringValue": key}}
        url = self._get_queue_url(queue)
        self._call_aws("sqs", "send_message", QueueUrl=url, MessageBody=text, MessageAttributes=attributes, **more)

    def request_resume(self, target: str) -> None:
        """Request another invocation of this function for a file or a batch."""
        self._bus.publish(SOURCE, target)

    def start_map(self, state_machine: str, target: str, e_tag: str) -> bool:
        """Start the state machine for these bytes of a file, and return whether it works on them.

        It does not if it has failed on them before: then one invocation after the other answers them.
        """
        name = hashlib.sha256(f"{target} {e_tag}".encode()).hexdigest()
        arguments = {"stateMachineArn": state_machine, "name": name, "input": json.dumps({"job": target})}
        return (
            self._call_aws("stepfunctions", "start_execution", expected_error="ExecutionAlreadyExists", **arguments)
            is not None
        )

    def _get_queue_url(self, queue: str) -> str:
        if queue not in self._urls:
            account, name = queue.split(":")[-2:]
            answer = self._call_aws("sqs", "get_queue_url", QueueName=name, QueueOwnerAWSAccountId=account)
            self._urls[queue] = answer["QueueUrl"]
        return self._urls[queue]

    def _call_aws(self, service: str, action: str, expected_error: str = "", **arguments: Any) -> Any:  # noqa: ANN401 - boto3 ships no types
        """Call AWS and return its answer; return None for the error code `expected_error`."""
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if service not in self._clients:
                self._clients[service] = boto3.client(service)
            return getattr(self._clients[service], action)(**arguments)
        except (BotoCoreError, ClientError) as exc:
            if expected_error and isinstance(exc, ClientError) and exc.response["Error"]["Code"] == expected_error:
                return None
            raise UnavailableError(f"{service} did not {action}: {format_cause(exc)}.") from exc
