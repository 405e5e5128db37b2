"""`pilotlight redrive`: dead letters go back, by SQS's own task or one by one."""

import json
import uuid
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from pilotlight.cli import redrive
from pilotlight.errors import InvalidInputError, UnavailableError
from tests.core.cli.conftest import Run

DLQ, QUEUE = (
    "https://sqs.us-east-1.amazonaws.com/123456789012/dead",
    "https://sqs.us-east-1.amazonaws.com/123456789012/q",
)
ARNS = {DLQ: "arn:aws:sqs:us-east-1:123456789012:dead", QUEUE: "arn:aws:sqs:us-east-1:123456789012:q"}


@pytest.fixture
def queues(aws_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str, str]:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    sqs = boto3.client("sqs")
    name = uuid.uuid4().hex
    dlq = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dlq, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1})
    queue = sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": policy})["QueueUrl"]
    return sqs, queue, dlq


@pytest.mark.parametrize("named", ["--queue", "--dlq"])
def test_dead_letters_go_back_with_the_ids_that_they_had(queues: tuple[Any, str, str], run: Run, named: str) -> None:
    sqs, queue, dlq = queues
    own = {"model_name": {"DataType": "String", "StringValue": "digits"}}
    ids = [sqs.send_message(QueueUrl=dlq, MessageBody=f"m{n}", MessageAttributes=own)["MessageId"] for n in range(12)]
    code, said, progress = run("redrive", named, queue if named == "--queue" else dlq, "--json")
    assert (code, json.loads(said)) == (0, {"queue": queue, "dlq": dlq, "moved": 12, "total": 12})
    assert "12 of 12 moved" in progress
    found = [
        message
        for _ in range(2)
        for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, MessageAttributeNames=["All"])[
            "Messages"
        ]
    ]
    assert sorted(message["Body"] for message in found) == sorted(f"m{n}" for n in range(12))
    assert {message["MessageAttributes"]["deduplication_id"]["StringValue"] for message in found} == set(ids)
    assert {message["MessageAttributes"]["model_name"]["StringValue"] for message in found} == {"digits"}


def test_no_dead_letters_are_none(queues: tuple[Any, str, str], run: Run) -> None:
    code, said, _ = run("redrive", "--dlq", queues[2])
    assert code == 0
    assert said.startswith("0 of 0 dead letters are back in")


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
    monkeypatch.setattr(redrive, "POLL_S", 0)
    sqs = stubbed(task("RUNNING", 0), task("RUNNING", 4), task("COMPLETED", 9))
    assert list(redrive.move(sqs, DLQ, QUEUE)) == [(0, 9), (4, 9), (9, 9)]


def test_a_task_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redrive, "POLL_S", 0)
    sqs = stubbed(task("RUNNING", 0), task("FAILED", 4, FailureReason="AccessDenied"))
    with pytest.raises(UnavailableError, match="FAILED after 4 messages: AccessDenied"):
        list(redrive.move(sqs, DLQ, QUEUE))


def test_a_queue_must_be_named(queues: tuple[Any, str, str], run: Run) -> None:
    sqs, _, dlq = queues
    with pytest.raises(InvalidInputError, match="Which queue"):
        redrive.pair(sqs, "", "")
    with pytest.raises(InvalidInputError, match="has no dead-letter queue"):
        redrive.pair(sqs, dlq, "")
    code, _, said = run("redrive")
    assert (code, "Which queue?" in said) == (2, True)
