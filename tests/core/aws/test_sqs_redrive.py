"""SQS's own task for dead letters of FIFO queues, as its API answers; all others are in core/cli/test_retention.py."""

from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from pilotlight.aws import sqs_redrive
from pilotlight.errors import UnavailableError

DLQ, QUEUE = (
    "https://sqs.us-east-1.amazonaws.com/123456789012/dead.fifo",
    "https://sqs.us-east-1.amazonaws.com/123456789012/q.fifo",
)
ARNS = {DLQ: "arn:aws:sqs:us-east-1:123456789012:dead.fifo", QUEUE: "arn:aws:sqs:us-east-1:123456789012:q.fifo"}


def stubbed(*statuses: dict[str, Any]) -> Any:  # noqa: ANN401 - boto3 ships no types
    sqs = boto3.client("sqs", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    stub = Stubber(sqs)
    for url in (DLQ, QUEUE):
        stub.add_response(
            "get_queue_attributes",
            {"Attributes": {"QueueArn": ARNS[url]}},
            {"QueueUrl": url, "AttributeNames": ["QueueArn"]},
        )
    asked = {"SourceArn": ARNS[DLQ], "DestinationArn": ARNS[QUEUE]}
    stub.add_response("start_message_move_task", {"TaskHandle": "t"}, asked)
    for status in statuses:
        stub.add_response("list_message_move_tasks", {"Results": [status]}, {"SourceArn": ARNS[DLQ], "MaxResults": 1})
    stub.activate()
    return sqs


def test_letters_of_a_queue_without_groups_keep_the_ids_that_their_senders_know() -> None:
    """SQS's own task, which is not asked here, would give them other ids, under which nobody looks for an answer."""
    dlq, queue = DLQ.removesuffix(".fifo"), QUEUE.removesuffix(".fifo")
    sqs = boto3.client("sqs", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    stub = Stubber(sqs)
    numbers = {"Attributes": {"ApproximateNumberOfMessages": "1"}}
    stub.add_response("get_queue_attributes", numbers)
    stub.add_response("receive_message", {"Messages": [{"MessageId": "known", "Body": "{}", "ReceiptHandle": "r"}]})
    kept = {"deduplication_id": {"DataType": "String", "StringValue": "known"}}
    sent = {"QueueUrl": queue, "MessageBody": "{}", "MessageAttributes": kept}
    stub.add_response("send_message", {"MessageId": "other"}, sent)
    stub.add_response("delete_message", {}, {"QueueUrl": dlq, "ReceiptHandle": "r"})
    with stub:
        assert list(sqs_redrive.move_messages(sqs, dlq, queue))[-1] == (1, 1)
    stub.assert_no_pending_responses()


def task(status: str, moved: int, **more: str) -> dict[str, Any]:
    numbers = {"ApproximateNumberOfMessagesMoved": moved, "ApproximateNumberOfMessagesToMove": 9}
    return {"Status": status, **numbers, **more}


def test_the_task_of_sqs_is_followed_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqs_redrive, "POLL_S", 0)
    sqs = stubbed(task("RUNNING", 0), task("RUNNING", 4), task("COMPLETED", 9))
    assert list(sqs_redrive.move_messages(sqs, DLQ, QUEUE)) == [(0, 9), (4, 9), (9, 9)]


def test_a_task_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqs_redrive, "POLL_S", 0)
    sqs = stubbed(task("RUNNING", 0), task("FAILED", 4, FailureReason="AccessDenied"))
    with pytest.raises(UnavailableError, match="FAILED after 4 messages: AccessDenied"):
        list(sqs_redrive.move_messages(sqs, DLQ, QUEUE))
