"""SQS's own task for dead letters, as its API answers; the way without it is told by tests/core/cli/test_redrive.py."""

from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from pilotlight.aws import sqs_redrive
from pilotlight.errors import UnavailableError

DLQ, QUEUE = (
    "https://sqs.us-east-1.amazonaws.com/123456789012/dead",
    "https://sqs.us-east-1.amazonaws.com/123456789012/q",
)
ARNS = {DLQ: "arn:aws:sqs:us-east-1:123456789012:dead", QUEUE: "arn:aws:sqs:us-east-1:123456789012:q"}


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
