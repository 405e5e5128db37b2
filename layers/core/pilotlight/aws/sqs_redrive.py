"""Dead letters of SQS back into their queue: by SQS's own task where the server has it, else message by message.

It is given a client of boto3 and imports none.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

from pilotlight.errors import InvalidInputError, UnavailableError

POLL_S = 1.0
HELD_S = 60  # that a message is hidden from others while it is moved
MOST_ATTRIBUTES = 10  # of a message, by SQS
ONCE = "deduplication_id"  # the attribute that the batch function keeps answers under
MISSING = {"InvalidAction", "UnknownOperationException", "UnknownOperation", "NotImplemented"}


def pair(sqs: Any, queue: str, dlq: str) -> tuple[str, str]:  # noqa: ANN401 - boto3 ships no types
    """Both URLs, from one of them; `InvalidInputError` when that does not tell the other."""
    if queue and not dlq:
        policy = json.loads(attribute(sqs, queue, "RedrivePolicy") or "{}")
        if "deadLetterTargetArn" not in policy:
            raise InvalidInputError(f"{queue} has no dead-letter queue; name one with --dlq.")
        *_, account, name = policy["deadLetterTargetArn"].split(":")
        dlq = sqs.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]
    elif dlq and not queue:
        sources = sqs.list_dead_letter_source_queues(QueueUrl=dlq).get("queueUrls", [])
        if len(sources) != 1:
            raise InvalidInputError(f"{dlq} takes the dead letters of {sources or 'no queue'}; name one with --queue.")
        queue = sources[0]
    elif not queue:
        raise InvalidInputError("Which queue? Name it with --queue, or its dead letters with --dlq.")
    return queue, dlq


def move(sqs: Any, dlq: str, queue: str) -> Iterator[tuple[int, int]]:  # noqa: ANN401
    """Move what lies there now; yields how many are moved, and of how many, from time to time and in the end."""
    from botocore.exceptions import ClientError

    source, target = attribute(sqs, dlq, "QueueArn"), attribute(sqs, queue, "QueueArn")
    try:
        sqs.start_message_move_task(SourceArn=source, DestinationArn=target)
    except ClientError as exc:
        code = exc.response["Error"]["Code"]
        if code not in MISSING and not code.isdecimal():  # a bare status is of a server that words no errors of SQS
            raise
        yield from by_hand(sqs, dlq, queue)
    else:
        yield from followed(sqs, source)


def followed(sqs: Any, source: str) -> Iterator[tuple[int, int]]:  # noqa: ANN401
    """SQS's own task, until it has ended."""
    while True:
        (task, *_) = sqs.list_message_move_tasks(SourceArn=source, MaxResults=1)["Results"]
        moved = task.get("ApproximateNumberOfMessagesMoved", 0)
        yield moved, task.get("ApproximateNumberOfMessagesToMove", moved)
        if task["Status"] not in ("RUNNING", "CANCELLING"):
            break
        time.sleep(POLL_S)
    if task["Status"] != "COMPLETED":
        why = task.get("FailureReason", "no reason given")
        raise UnavailableError(f"SQS's task is {task['Status']} after {moved} messages: {why}.")


def by_hand(sqs: Any, dlq: str, queue: str) -> Iterator[tuple[int, int]]:  # noqa: ANN401
    """Message by message: sent, then deleted, so that none is lost; each keeps its id as its deduplication id."""
    total, moved = int(attribute(sqs, dlq, "ApproximateNumberOfMessages")), 0
    while moved < total:  # and no more: some may die again meanwhile
        found = sqs.receive_message(
            QueueUrl=dlq, MaxNumberOfMessages=10, VisibilityTimeout=HELD_S, MessageAttributeNames=["All"]
        ).get("Messages", [])
        for message in found:
            sqs.send_message(QueueUrl=queue, MessageBody=message["Body"], MessageAttributes=attributes(message))
            sqs.delete_message(QueueUrl=dlq, ReceiptHandle=message["ReceiptHandle"])
        moved += len(found)
        if not found:
            break
        yield moved, total
    yield moved, total


def attributes(message: dict[str, Any]) -> dict[str, Any]:
    """The message's own, and the id that it had, under which it may be answered already."""
    own = {
        name: {key: given for key, given in value.items() if key in ("DataType", "StringValue", "BinaryValue")}
        for name, value in message.get("MessageAttributes", {}).items()
    }
    if ONCE not in own and len(own) < MOST_ATTRIBUTES:
        own[ONCE] = {"DataType": "String", "StringValue": message["MessageId"]}
    return own


def attribute(sqs: Any, url: str, name: str) -> str:  # noqa: ANN401
    """One attribute of a queue, empty where it has none."""
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name]).get("Attributes", {})
    return str(found.get(name, ""))
