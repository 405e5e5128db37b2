"""Work that no caller waits for: messages, files of the inbox and events, and what becomes of those that fail."""

import csv
import gzip
import io
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from pilotlight.registry.registry import Registry
from tests import fakes
from tests.e2e.deploy.conftest import PILOTLIGHT, REPLIES, DeployedStack

LINE_ROWS = 20_000  # of a line of the file that is spread
LINES = 60  # of it; 18 MB, which are two spans, since one has 16 MB at least
VISIBILITY_S = 3  # of the queue while messages fail in it, in place of 720
ODD_NAMES = (
    "with a space.jsonl",
    "a+b&c=d.jsonl",
    "Ärger über %41 %2F.jsonl",
    "emoji 👩‍🔬.jsonl",
    ".leading.dots.jsonl",
    "a=b/c.jsonl",
    "10.32.07\u202fAM (1) [2] {3} 'q' \"q\" #;,@$!*~^`|<>.jsonl",
    "x" * 230 + ".jsonl",
    "/".join(["long" * 12] * 19) + ".jsonl",
    "upper.JSONL",
    "table.csv",
)


@dataclass(frozen=True)
class Place:
    """The stack, the queue that gets its replies, and the one that hears of its alarms."""

    stack: DeployedStack
    replies: str
    alarms: str

    def send(self, body: object, **attributes: str) -> str:
        """Send a message to the stack, and return its id."""
        text = body if isinstance(body, str) else json.dumps(body)
        given = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        url = self.stack.outputs["Queue"]
        sent = boto3.client("sqs").send_message(QueueUrl=url, MessageBody=text, MessageAttributes=given)
        return str(sent["MessageId"])

    def read(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """Read a document of its bucket, once that is there."""
        fakes.eventually(lambda: self.stack.has(path), 180)
        return json.loads(self.stack.store.get(path).data)

    def put_event(self, detail: object) -> str:
        """Put an event onto the bus, as any program of the account may, and return its id."""
        entry = {
            "Source": "shop",
            "DetailType": "Pilotlight Inference",
            "Resources": [f"arn:aws:s3:::{self.stack.outputs['Bucket']}"],
            "Detail": json.dumps(detail),
        }
        (made,) = boto3.client("events").put_events(Entries=[entry])["Entries"]
        return str(made["EventId"])


@pytest.fixture(scope="module")
def place(captured: DeployedStack) -> Place:
    sqs = boto3.client("sqs")
    heard = sqs.create_queue(QueueName="heard")["QueueUrl"]
    arn = get_arn(heard)
    statement = {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [{**statement, "Resource": arn}]})
    sqs.set_queue_attributes(QueueUrl=heard, Attributes={"Policy": policy})
    topics = boto3.client("sns").list_topics()["Topics"]
    topic = next(one["TopicArn"] for one in topics if captured.name in one["TopicArn"])
    boto3.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    fakes.publish(Registry(captured.store))
    return Place(captured, sqs.get_queue_url(QueueName=REPLIES)["QueueUrl"], heard)


def get_arn(queue: str) -> str:
    found = boto3.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
    return str(found["Attributes"]["QueueArn"])


def v2(*rows: list[float], model: str = "double") -> dict[str, Any]:
    """A body that names its model."""
    x = {"name": "x", "shape": [len(rows), 3], "datatype": "FP32", "data": [value for row in rows for value in row]}
    return {"model_name": model, "inputs": [x]}


def receive(queue: str) -> list[dict[str, Any]]:
    """Take what is in a queue."""
    client = boto3.client("sqs")
    found = client.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, MessageAttributeNames=["All"])
    for message in (messages := found.get("Messages", [])):
        client.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return list(messages)


def test_messages_are_answered_each_once(place: Place) -> None:
    ids = [place.send(v2([number, 0, 1]), correlation_id=f"order-{number}") for number in range(20)]
    for number, name in enumerate(ids):
        answer = place.read(f"outbox/messages/{name}.json")
        assert answer["outputs"][0]["data"] == [2 * number, 0, 2]
        assert answer["parameters"] == {"correlation_id": f"order-{number}"}
    fakes.eventually(lambda: place.stack.count_messages("Queue") == 0)
    answers = list(place.stack.store.list_paths("outbox/messages"))
    assert sorted(answers) == sorted(f"outbox/messages/{name}.json" for name in ids)
    assert place.stack.count_messages("DeadLetters") == 0


def test_a_reply_is_sent_to_the_queue_that_the_stack_allows(place: Place) -> None:
    asked = place.send(v2([1, 2, 3]), reply_to=get_arn(place.replies))
    found: list[dict[str, Any]] = []

    def has_come() -> bool:
        found.extend(receive(place.replies))
        return bool(found)

    fakes.eventually(has_come, 60)
    (reply,) = found
    assert reply["MessageAttributes"]["in_reply_to"]["StringValue"] == asked
    assert json.loads(reply["Body"])["outputs"][0]["data"] == [2, 4, 6]


def test_an_event_of_the_bus_is_answered(place: Place) -> None:
    asked = place.put_event(v2([1, 0, 1]))
    answer = place.read(f"outbox/messages/{asked}.json")
    assert answer["outputs"][0]["data"] == [2, 0, 2]


def make_table(rows: list[list[float]]) -> dict[str, bytes]:
    """The same rows as each kind of file that holds several, by its suffix."""
    text = io.StringIO()
    csv.writer(text).writerows([["a", "b", "c"], *rows])
    parquet = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(dict(zip("abc", np.array(rows).T, strict=True))), parquet)
    lines = "".join(json.dumps(v2(row)) + "\n" for row in rows)
    return {".csv": text.getvalue().encode(), ".parquet": parquet.getvalue(), ".jsonl": lines.encode()}


def read_manifests(place: Place, paths: set[str]) -> dict[str, Any]:
    """Read the manifests of these files of the inbox, by their paths, once all are there."""
    found: dict[str, Any] = {}

    def is_complete() -> bool:
        for path in place.stack.store.list_paths("outbox"):
            if path.endswith("/manifest.json") and path not in found:
                found[path] = json.loads(place.stack.store.get(path).data)
        return paths <= {one["input"] for one in found.values()}

    fakes.eventually(is_complete, 90)
    return {one["input"]: one for one in found.values()}


def test_files_with_odd_names_are_answered(place: Place) -> None:
    """Each under the name that it has, whatever S3, EventBridge and Lambda do to names on the way."""
    content = make_table([[1.0, 0.0, 1.0], [2.0, 2.0, 2.0]])
    paths = {f"inbox/double/{name}" for name in ODD_NAMES}
    for path in sorted(paths):
        place.stack.store.put(path, content["." + path.rpartition(".")[2].lower()])
    found = read_manifests(place, paths)
    for path in sorted(paths):
        assert (found[path]["refused"], found[path]["answered"]) == ("", 2), found[path]
        lines = place.stack.store.get(found[path]["result"]).data.splitlines()
        assert [json.loads(line)["outputs"][0]["data"] for line in lines] == [[2, 0, 2], [4, 4, 4]]
    assert len({found[path]["result"] for path in paths}) == len(paths)


def test_a_table_is_answered_row_by_row(place: Place) -> None:
    place.stack.store.put("inbox/double/a table.parquet", make_table([[1.0, 0.0, 1.0], [2.0, 2.0, 2.0]])[".parquet"])
    manifest = place.read("outbox/double/a table.parquet/manifest.json")
    assert (manifest["refused"], manifest["answered"]) == ("", 2)
    lines = place.stack.store.get("outbox/double/a table.parquet.jsonl").data.splitlines()
    assert [json.loads(line)["outputs"][0]["data"] for line in lines] == [[2, 0, 2], [4, 4, 4]]


def test_files_that_cannot_be_read_are_refused_with_the_reason(place: Place) -> None:
    packed = {"inbox/double/packed.jsonl": gzip.compress(b"{}"), "inbox/double/z.jsonl": b"\x28\xb5\x2f\xfd\0\0\0\0"}
    others = {"inbox/double/named.jsonl.gz": gzip.compress(b"{}"), "inbox/double/empty.jsonl": b""}
    for path, data in {**packed, **others, "inbox/double/folder/": b""}.items():
        boto3.client("s3").put_object(Bucket=place.stack.outputs["Bucket"], Key=path, Body=data)
    found = read_manifests(place, {*packed, *others})
    assert all("unpack it" in found[path]["refused"] for path in packed), found
    assert found["inbox/double/named.jsonl.gz"]["refused"] != ""
    assert (found["inbox/double/empty.jsonl"]["refused"], found["inbox/double/empty.jsonl"]["lines"]) == ("", 0)
    assert place.stack.count_messages("DeadLetters") == 0


def test_a_large_file_is_answered_by_several_invocations_at_once(place: Place) -> None:
    """By the state machine's map; each span by an invocation of its own, under the roles of both."""
    x = {"name": "x", "shape": [LINE_ROWS, 3], "datatype": "FP32", "data": [1.25] * (3 * LINE_ROWS)}
    line = json.dumps({"inputs": [x]}).encode() + b"\n"
    place.stack.store.put("inbox/double/large.jsonl", line * LINES)
    manifest = place.read("outbox/double/large/manifest.json")
    assert (manifest["answered"], manifest["failed"], manifest["refused"]) == (LINES, 0, "")
    machines = boto3.client("stepfunctions").list_state_machines()["stateMachines"]
    machine = next(one["stateMachineArn"] for one in machines if one["name"].startswith(place.stack.name))
    executions = boto3.client("stepfunctions").list_executions(stateMachineArn=machine)["executions"]
    (execution,) = (one for one in executions if "mapRunArn" not in one)
    fakes.eventually(lambda: describe(execution["executionArn"])["status"] == "SUCCEEDED", 60)
    (run,) = boto3.client("stepfunctions").list_map_runs(executionArn=execution["executionArn"])["mapRuns"]
    described = boto3.client("stepfunctions").describe_map_run(mapRunArn=run["mapRunArn"])
    assert (described["executionCounts"]["succeeded"], described["maxConcurrency"]) == (2, 10)
    result = place.stack.store.get(manifest["result"]).data
    assert result.count(b"\n") == LINES
    assert json.loads(result.partition(b"\n")[0])["outputs"][0]["data"][:3] == [2.5, 2.5, 2.5]


def describe(execution: str) -> dict[str, Any]:
    found: dict[str, Any] = boto3.client("stepfunctions").describe_execution(executionArn=execution)
    return found


@pytest.fixture
def hasty(place: Place) -> Iterator[Place]:
    """The stack, whose queue gives failed messages again after seconds in place of twelve minutes."""
    sqs, queue = boto3.client("sqs"), place.stack.outputs["Queue"]
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": str(VISIBILITY_S)})
    yield place
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "720"})


def test_what_has_no_answer_is_a_dead_letter_until_its_cause_is_mended(hasty: Place) -> None:
    """Good messages beside it are answered; somebody is told; `pilotlight redrive` brings back what can be answered."""
    stack, early = hasty.stack, v2([1, 2, 3], model="late")
    poison = ["{", "[]", json.dumps(v2([1, 2])), json.dumps({"inputs": [], "model_name": "double"})]
    records = {"Records": [{"eventSource": "aws:kinesis", "eventSourceARN": "arn", "kinesis": {"data": "e30="}}]}
    good = []
    for number, bad in enumerate([*poison, json.dumps(records)]):
        hasty.send(bad)
        good.append(hasty.send(v2([number, 1, 1])))
    late, event = hasty.send(early), hasty.put_event(early)
    assert [hasty.read(f"outbox/messages/{name}.json")["outputs"][0]["data"][0] for name in good] == [0, 2, 4, 6, 8]
    fakes.eventually(lambda: stack.count_messages("DeadLetters") == len(poison) + 3, 90)
    assert stack.count_messages("Queue") == 0
    assert hear(hasty, "Dead")["NewStateValue"] == "ALARM"

    fakes.publish(Registry(stack.store), "late")
    command = [str(PILOTLIGHT), "redrive", "--dlq", stack.outputs["DeadLetters"]]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    for name in (late, event):
        assert hasty.read(f"outbox/messages/{name}.json")["outputs"][0]["data"] == [2, 4, 6]
    fakes.eventually(lambda: stack.count_messages("DeadLetters") == len(poison) + 1, 90)
    answers = [path for path in stack.store.list_paths("outbox/messages") if path.endswith(f"/{late}.json")]
    assert len(answers) == 1


def hear(place: Place, alarm: str) -> dict[str, Any]:
    """Wait until the topic of the stack has told of an alarm, and return what it said."""
    heard: list[dict[str, Any]] = []

    def is_heard() -> bool:
        for message in receive(place.alarms):
            said = json.loads(json.loads(message["Body"])["Message"])
            heard.extend([said] if f"-{alarm}-" in said["AlarmName"] else [])
        return bool(heard)

    fakes.eventually(is_heard, 60)
    return heard[0]
