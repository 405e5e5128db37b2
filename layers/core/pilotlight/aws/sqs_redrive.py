"""Move dead letters of SQS back to their queue, under the ids by which their senders look for answers.

SQS's own task gives each message a new id. In a FIFO queue, answers are known by the deduplication id, which is the
sender's (infra/decisions/0083). The caller passes a boto3 client; the module imports boto3 nowhere.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pilotlight.errors import InvalidInputError, UnavailableError

POLL_S = 1.0
MAX_RECEIVED = 10  # messages at once, by SQS
WAIT_S = 2  # for messages: without it, SQS asks only some of its servers, and finds none in the others
VISIBILITY_TIMEOUT_S = 60  # how long a message is hidden from other consumers while it is moved
MAX_ATTRIBUTES = 10  # of a message, by SQS
DEDUPLICATION_ATTRIBUTE = "deduplication_id"  # the attribute under which the batch function stores answers
FIFO_SUFFIX = ".fifo"  # of the name of a queue with groups


def resolve_queue_pair(sqs: Any, queue: str, dlq: str) -> tuple[str, str]:  # noqa: ANN401 - boto3 ships no types
    """Complete both URLs from one of them; `InvalidInputError` if one does not determine the other."""
    if queue and not dlq:
        policy = json.loads(get_queue_attribute(sqs, queue, "RedrivePolicy") or "{}")
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


def move_messages(sqs: Any, dlq: str, queue: str) -> Iterator[tuple[int, int]]:  # noqa: ANN401
    """Move the messages that are there now; yield how many are moved, and of how many, repeatedly and at the end."""
    if not queue.endswith(FIFO_SUFFIX):
        yield from move_messages_one_by_one(sqs, dlq, queue)
        return
    source, target = get_queue_attribute(sqs, dlq, "QueueArn"), get_queue_attribute(sqs, queue, "QueueArn")
    sqs.start_message_move_task(SourceArn=source, DestinationArn=target)
    yield from follow_move_task(sqs, source)


def follow_move_task(sqs: Any, source: str) -> Iterator[tuple[int, int]]:  # noqa: ANN401
    """Yield the progress of SQS's own task until it ends."""
    while True:
        (task, *_) = sqs.list_message_move_tasks(SourceArn=source, MaxResults=1)["Results"]
        moved = task.get("ApproximateNumberOfMessagesMoved", 0)
        yield moved, task.get("ApproximateNumberOfMessagesToMove", moved)
        if task["Status"] not in ("RUNNING", "CANCELLING"):
            break
        time.sleep(POLL_S)
    if task["Status"] != "COMPLETED":
        reason = task.get("FailureReason", "no reason given")
        raise UnavailableError(f"SQS's task is {task['Status']} after {moved} messages: {reason}.")


def move_messages_one_by_one(sqs: Any, dlq: str, queue: str) -> Iterator[tuple[int, int]]:  # noqa: ANN401
    """Move message by message, some at once; each keeps its id as its deduplication id."""
    total, moved = int(get_queue_attribute(sqs, dlq, "ApproximateNumberOfMessages")), 0
    with ThreadPoolExecutor(MAX_RECEIVED) as executor:
        while moved < total:  # not while there are any: some may fail again meanwhile
            messages = sqs.receive_message(
                QueueUrl=dlq,
                MaxNumberOfMessages=MAX_RECEIVED,
                VisibilityTimeout=VISIBILITY_TIMEOUT_S,
                WaitTimeSeconds=WAIT_S,
                MessageAttributeNames=["All"],
            ).get("Messages", [])
            if not messages:
                break
            list(executor.map(lambda message: move_message(sqs, message, dlq, queue), messages))
            moved += len(messages)
            yield moved, total
    yield moved, total


def move_message(sqs: Any, message: dict[str, Any], dlq: str, queue: str) -> None:  # noqa: ANN401
    """Send a message to the queue, then delete it here, so that it is not lost."""
    sqs.send_message(QueueUrl=queue, MessageBody=message["Body"], MessageAttributes=build_message_attributes(message))
    sqs.delete_message(QueueUrl=dlq, ReceiptHandle=message["ReceiptHandle"])


def build_message_attributes(message: dict[str, Any]) -> dict[str, Any]:
    """Return the message's own attributes, and its original id, under which an answer may be stored already."""
    result = {
        name: {key: part for key, part in value.items() if key in ("DataType", "StringValue", "BinaryValue")}
        for name, value in message.get("MessageAttributes", {}).items()
    }
    if DEDUPLICATION_ATTRIBUTE not in result and len(result) < MAX_ATTRIBUTES:
        result[DEDUPLICATION_ATTRIBUTE] = {"DataType": "String", "StringValue": message["MessageId"]}
    return result


def get_queue_attribute(sqs: Any, url: str, name: str) -> str:  # noqa: ANN401
    """Return one attribute of a queue, or an empty string."""
    values = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name]).get("Attributes", {})
    return str(values.get(name, ""))
