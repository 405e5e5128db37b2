"""`pilotlight redrive`: dead letters go back under the ids that their senders know."""

import json
import uuid
from typing import Any

import boto3
import pytest

from tests.core.cli.conftest import Run


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


def test_a_queue_must_be_named(queues: tuple[Any, str, str], run: Run) -> None:
    code, _, said = run("redrive")
    assert (code, "Which queue?" in said) == (2, True)
    code, _, said = run("redrive", "--queue", queues[2])
    assert (code, "has no dead-letter queue" in said) == (2, True)
    code, _, said = run("redrive", "--dlq", queues[1])
    assert (code, "takes the dead letters of no queue" in said) == (2, True)


def test_what_boto3_says_ends_with_one_full_stop(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    code, _, said = run("redrive", "--dlq", "http://127.0.0.1:9/1/dead")
    assert (code, said) == (1, "SQS does not move the dead letters: You must specify a region.\n")
