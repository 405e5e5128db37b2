"""What becomes of messages and events: one answer for each key, and only those fail that must."""

import base64
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from functions.batch_worker.events import FileEvent, InferenceMessage, parse_bus_event, parse_queue_record
from functions.batch_worker.handler import build_batch_worker
from functions.batch_worker.outbound_messages import Dispatcher
from pilotlight.capture.record import CaptureRecord
from pilotlight.contracts.processing import TableColumn, TablePreprocessing
from pilotlight.errors import InvalidInputError, StoreError
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.functions.batch_worker.conftest import REPLIES, Place
from tests.load import queue

ROOT = Path(__file__).parents[3]
EVENTS = ROOT / "tests" / "events"
BODY = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
ANSWER = {"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [2.0, 4.0, 6.0]}


def recorded(name: str) -> dict[str, Any]:
    return dict(json.loads((EVENTS / f"batch-{name}.json").read_text()))


def record(key: str, body: object, received: int = 1, **attributes: str) -> dict[str, Any]:
    return {
        "messageId": key,
        "body": body if isinstance(body, str) else json.dumps(body),
        "attributes": {"ApproximateReceiveCount": str(received)},
        "messageAttributes": {name: {"stringValue": value, "dataType": "String"} for name, value in attributes.items()},
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:asked",
    }


def failed(place: Place, *records: dict[str, Any]) -> list[str]:
    answer = place.handle({"Records": list(records)}, None)
    return [item["itemIdentifier"] for item in answer["batchItemFailures"]]


def test_recorded_messages_are_answered_and_only_the_broken_one_comes_again() -> None:
    place = Place(open_store("memory://"))
    fakes.publish_digits(place.registry)
    event = recorded("queue")
    answer = place.handle(event, None)
    first, second, broken = (each["messageId"] for each in event["Records"])
    assert answer == {"batchItemFailures": [{"itemIdentifier": broken}]}
    said = [place.document(f"messages/{each}.json") for each in (first, second)]
    assert said[0]["outputs"] == said[1]["outputs"]
    assert [each["parameters"]["correlation_id"] for each in said] == [first, second]
    assert max(range(10), key=said[0]["outputs"][0]["data"].__getitem__) == 0
    assert len(list(place.store.list_paths("outbox"))) == 2


def test_a_recorded_event_of_the_bus_is_answered_under_its_id() -> None:
    place = Place(open_store("memory://"))
    fakes.publish_digits(place.registry)
    event = recorded("asked")
    assert place.handle(event, None) == {"done": [f"outbox/messages/{event['id']}.json"]}
    assert place.document(f"messages/{event['id']}.json")["model_name"] == "digits"


def test_a_batch_that_fails_as_a_whole_is_told_message_by_message(place: Place) -> None:
    assert failed(place, record("a", "{"), record("b", {**BODY, "model_name": "nobody"})) == ["a", "b"]


def test_behind_a_failure_in_a_fifo_queue_everything_comes_again_in_its_order(place: Place) -> None:
    records = [record("a", BODY), record("b", "{"), record("c", BODY)]
    for each in records:
        each["eventSourceARN"] += ".fifo"
        each["attributes"] |= {"MessageGroupId": "g", "MessageDeduplicationId": f"once-{each['messageId']}"}
    assert failed(place, *records) == ["b", "c"]
    assert list(place.store.list_paths("outbox")) == ["outbox/messages/once-a.json"]


def test_no_byte_of_a_message_is_logged(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    steps = TablePreprocessing(
        input="x",
        columns=(TableColumn(name="size"), TableColumn(name="colour", categories=("red", "blue"), unknown="refuse")),
    )
    draft = replace(fakes.draft("table"), task="tabular", preprocess=steps)
    place.registry.publish_version(draft, {"model.onnx": fakes.graph("double")})
    wrong = {"model_name": "table", "size": 1, "colour": "secret-471147"}
    assert failed(place, record("a", wrong), record("b", "secret-471147")) == ["a", "b"]
    with pytest.raises(InvalidInputError) as told:
        place.handle({"detail-type": "Pilotlight Inference", "id": "e", "detail": wrong}, None)
    assert "Message a failed: InvalidInputError" in caplog.text
    assert "471147" not in caplog.text + str(told.value)
    assert told.value.__suppress_context__


def test_attributes_name_the_model_before_the_body_does(place: Place) -> None:
    fakes.publish(place.registry, "other", of="square")
    fakes.publish(place.registry, "double", of="square")
    assert not failed(
        place,
        record("attribute", {**BODY, "model_name": "nobody"}, model_name="double", model_version="2"),
        record("body", {**BODY, "model_name": "double", "model_version": "candidate"}),
        record("number", {**BODY, "model_name": "double", "model_version": 1}),
        record("champion", {**BODY, "model_name": "double"}),
    )
    versions = {
        key: place.document(f"messages/{key}.json")["model_version"]
        for key in ("attribute", "body", "number", "champion")
    }
    assert versions == {"attribute": "2", "body": "2", "number": "1", "champion": "1"}
    assert failed(place, record("nameless", BODY)) == ["nameless"]  # of two models


def test_a_message_that_was_answered_is_not_answered_anew(place: Place) -> None:
    assert not failed(place, record("a", BODY))
    before = place.store.get("outbox/messages/a.json")
    fakes.publish(place.registry, of="square")
    place.registry.move_alias("double", "champion", 2, actor="ann", reason="test")
    assert not failed(place, record("a", BODY, received=2), record("a", BODY), record("a", "{", received=3))
    assert place.store.get("outbox/messages/a.json") == before


def test_one_deduplication_id_is_one_message(place: Place) -> None:
    assert not failed(
        place, record("a", BODY, deduplication_id="order 7/b"), record("b", BODY, deduplication_id="order 7/b")
    )
    (path,) = place.store.list_paths("outbox/messages")
    assert path.removeprefix("outbox/messages/").removesuffix(".json").isalnum()  # a hash: the id is no name


def test_a_reply_is_sent_where_it_is_allowed(place: Place) -> None:
    assert failed(
        place,
        record("a", BODY, reply_to=REPLIES),
        record("b", BODY, reply_to=f"{REPLIES}-of-somebody-else"),
    ) == ["b"]
    ((key, answer),) = place.post.replies
    assert (key, json.loads(answer)["outputs"]) == ("a", [ANSWER])
    assert list(place.store.list_paths("outbox")) == ["outbox/messages/a.json"]


def test_a_store_that_is_away_fails_the_message_and_not_the_others(place: Place) -> None:
    class Away(fakes.FaultyStore):
        def create(self, path: str, data: bytes) -> None:
            if path.endswith("b.json"):
                raise StoreError("The store failed")
            super().create(path, data)

    place = Place(Away())
    fakes.publish(place.registry)
    assert failed(place, record("a", BODY), record("b", BODY), record("c", BODY)) == ["b"]


def test_binary_answers_are_refused(place: Place) -> None:
    assert failed(place, record("a", {**BODY, "parameters": {"binary_data_output": True}})) == ["a"]


def test_a_message_without_time_comes_again(place: Place) -> None:
    class Late:
        def get_remaining_time_in_millis(self) -> int:
            return 0

    answer = place.handle({"Records": [record("a", BODY)]}, Late())
    assert answer == {"batchItemFailures": [{"itemIdentifier": "a"}]}


def test_a_dead_event_that_is_put_into_the_queue_is_that_event(place: Place) -> None:
    created = recorded("created")
    created["detail"]["bucket"]["name"] = "b"
    assert parse_queue_record(record("a", created)) == [parse_bus_event(created)]
    assert parse_bus_event(created) == FileEvent("s3://b/inbox/digits/monday.jsonl", "123456789012", "N4N7GDK58NMKJ12R")
    assert not failed(place, record("a", created))
    assert place.post.resumed == ["s3://b/inbox/digits/monday.jsonl"]
    (asked,) = parse_queue_record(record("a", recorded("asked")))
    assert isinstance(asked, InferenceMessage)
    assert asked.key == recorded("asked")["id"]


def test_a_notification_of_s3_in_the_queue_is_that_file(place: Place) -> None:
    notified = recorded("notified")
    uri = "s3://my-bucket/inbox/digits/monday and ümlaut+1.jsonl"
    assert parse_queue_record(record("a", notified)) == [FileEvent(uri, "AWS:AIDAEXAMPLE", "N4N7GDK58NMKJ12R")]
    assert not failed(place, record("a", notified))
    assert place.post.resumed == [uri]
    two = {"Records": [notified["Records"][0], {**notified["Records"][0], "eventName": "s3:ObjectCreated:Copy"}]}
    assert not failed(place, record("a", two))
    assert place.post.resumed == [uri] * 3


CREATED = recorded("notified")
CREATED_URI = "s3://my-bucket/inbox/digits/monday and ümlaut+1.jsonl"
ON_BUS = recorded("created")
TEST_EVENT = {
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2026-11-29T10:00:00.000Z",
    "Bucket": "my-bucket",
    "RequestId": "5582815E1AEA5ADF",
    "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR+YstdA6Knx4Ip8EXAMPLE",
}


def of_event(name: str) -> dict[str, Any]:
    return {"Records": [{**CREATED["Records"][0], "eventName": name}]}


def by_topic(message: object, kind: str = "Notification", **attributes: str) -> dict[str, Any]:
    return {
        "Type": kind,
        "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
        "TopicArn": "arn:aws:sns:us-west-2:123456789012:uploads",
        "Message": message if isinstance(message, str) else json.dumps(message),
        "Timestamp": "2026-11-29T10:00:00.000Z",
        "SubscribeURL": "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&Token=2336412f37",
        "MessageAttributes": {name: {"Type": "String", "Value": value} for name, value in attributes.items()},
    }


def by_destination(condition: str, **payloads: object) -> dict[str, Any]:
    context = {"requestId": "e4b46cbf-b738-xmpl-8880-a18cdf61200e", "condition": condition}
    return {"version": "1.0", "timestamp": "2026-11-29T10:00:00.000Z", "requestContext": context, **payloads}


CHATTER = {
    "test of S3": TEST_EVENT,
    "test of S3 by a topic": by_topic(TEST_EVENT),
    "confirmation": by_topic("You have chosen to subscribe to the topic.", "SubscriptionConfirmation"),
    "end of a subscription": by_topic("You have chosen to deactivate.", "UnsubscribeConfirmation"),
    "deletion": of_event("ObjectRemoved:Delete"),
    "deletion by a topic": by_topic(of_event("ObjectRemoved:DeleteMarkerCreated")),
    "tags": of_event("ObjectTagging:Put"),
    "restore": of_event("ObjectRestore:Completed"),
    "expiration": of_event("LifecycleExpiration:Delete"),
    "deletion on the bus": {**ON_BUS, "detail-type": "Object Deleted"},
    "access list on the bus, by a topic": by_topic({**ON_BUS, "detail-type": "Object ACL Updated"}),
    "schedule": {**ON_BUS, "source": "aws.events", "detail-type": "Scheduled Event", "detail": {}},
    "trail": {**ON_BUS, "detail-type": "AWS API Call via CloudTrail"},
    "answer of nothing": by_destination("Success", requestPayload={}, responsePayload=None),
    "failed deletion": by_destination("RetriesExhausted", requestPayload=of_event("ObjectRemoved:Delete")),
}


@pytest.mark.parametrize("chatter", CHATTER.values(), ids=CHATTER)
def test_what_a_service_tells_of_itself_is_dropped(
    place: Place, chatter: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Raised, it would come again, and end as an alarm in the dead-letter queue."""
    assert not failed(place, record("a", chatter))
    (said,) = place.handle(chatter, None)["done"]
    assert said.endswith(" asks for nothing; it is dropped.")
    assert (place.post.resumed, list(place.store.list_paths("outbox"))) == ([], [])
    assert "ERROR" not in {each.levelname for each in caplog.records}


@pytest.mark.parametrize(
    "envelope",
    [
        of_event("ObjectCreated:CompleteMultipartUpload"),
        of_event("s3:ObjectCreated:Put"),  # as MinIO and Ceph name it
        {"Records": [{**CREATED["Records"][0], "eventSource": "minio:s3"}]},
        by_topic(CREATED),
        by_topic(by_topic(CREATED)),
        by_destination("RetriesExhausted", requestPayload=CREATED, responsePayload={"errorMessage": "late"}),
        by_topic(by_destination("Success", requestPayload={}, responsePayload=CREATED)),
        {"Records": [{"messageId": "1", "eventSource": "aws:sqs", "body": json.dumps(CREATED)}]},
        {"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": by_topic(CREATED)}]},
        {"Records": [of_event("ObjectRemoved:Delete")["Records"][0], CREATED["Records"][0]]},
        {
            **ON_BUS,
            "detail": {"bucket": {"name": "my-bucket"}, "object": {"key": "inbox/digits/monday and ümlaut+1.jsonl"}},
        },
    ],
)
def test_file_is_found_in_every_envelope(place: Place, envelope: dict[str, Any]) -> None:
    assert not failed(place, record("a", envelope))
    assert place.post.resumed == [CREATED_URI]


def test_files_of_envelopes_are_answered_where_no_queue_is_between(place: Place) -> None:
    name = "monday and ümlaut+1.jsonl"
    place.store.put(f"inbox/digits/{name}", json.dumps(BODY).encode() + b"\n")
    event = json.loads(json.dumps(CREATED).replace("my-bucket/", ""))
    for envelope in (event, by_topic(event), {"Records": [{"EventSource": "aws:sns", "Sns": by_topic(event)}]}):
        with pytest.raises(InvalidInputError, match="only files below"):  # of another bucket
            place.handle(envelope, None)


def test_message_by_a_topic_is_answered_with_its_attributes(place: Place) -> None:
    fakes.publish(place.registry, "other", of="square")
    direct = {"Records": [{"EventSource": "aws:sns", "Sns": by_topic(BODY, model_name="double")}]}
    assert not failed(
        place,
        record("a", by_topic(BODY, model_name="double", correlation_id="mine")),
        record("b", by_destination("Success", requestPayload={}, responsePayload={**BODY, "model_name": "double"})),
        record("raw", BODY, model_name="double"),  # raw message delivery
    )
    assert place.document("messages/a.json")["parameters"]["correlation_id"] == "mine"
    assert [place.document(f"messages/{key}.json")["outputs"] for key in ("b", "raw")] == [[ANSWER], [ANSWER]]
    place.handle({"Records": [{"EventSource": "aws:sns", "Sns": by_topic({**BODY, "model_name": "double"})}]}, None)
    path = "messages/165545c9-2a5c-472c-8df2-7ff2be2b3b1b.json"
    assert place.document(path)["outputs"] == [ANSWER]
    assert place.handle(direct, None) == {"done": [f"outbox/{path}"]}


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(json.dumps(BODY).encode()).decode(),
        base64.encodebytes(json.dumps(BODY, indent=1).encode()).decode(),
        base64.b64encode(json.dumps(BODY, indent="\t").replace("\n", "\r\n").encode()).decode(),
        json.dumps(json.dumps(BODY)),
        json.dumps(json.dumps(BODY, indent=1)),
        "\ufeff" + json.dumps(BODY),
    ],
)
def test_body_in_base64_or_in_a_text_of_json_is_that_body(place: Place, text: str) -> None:
    assert not failed(place, record("a", text), record("b", by_topic(BODY) | {"Message": text}))
    assert [place.document(f"messages/{key}.json")["outputs"] for key in "ab"] == [[ANSWER], [ANSWER]]


def test_a_text_that_begins_as_base64_of_an_object_is_itself(place: Place) -> None:
    assert failed(place, record("a", "eyJ is no base64"), record("b", "eyJhIjo"), record("c", '"{ no JSON')) == [*"abc"]


def test_records_of_a_pipe_are_those_of_its_queue(place: Place) -> None:
    """Without an object around them; an enrichment leaves out what it does not know."""
    first, second, broken = record("a", BODY), record("b", BODY), record("c", "{")
    del second["messageAttributes"], second["attributes"]
    answer = place.handle([first, second, broken], None)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "c"}]}
    assert [place.document(f"messages/{key}.json")["outputs"] for key in "ab"] == [[ANSWER], [ANSWER]]
    for event in ("text", None, 5, [BODY]):
        with pytest.raises(InvalidInputError, match=r"The event "):
            place.handle(event, None)  # type: ignore[arg-type]  # as Lambda may be invoked


@pytest.mark.parametrize(
    "poison",
    [
        {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {"bucket": "x"}}]},
        {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put"}]},
        {**ON_BUS, "detail": {}},
        {**ON_BUS, "detail": []},
        {"detail-type": "Something", "source": "my.app", "detail": {}},
        by_topic("{"),
        by_topic(by_topic(by_topic(by_topic(by_topic(by_topic(by_topic(BODY))))))),
        '{"TopicArn": ' + "[" * 100_000,
    ],
)
def test_what_is_broken_comes_again(place: Place, poison: object) -> None:
    assert failed(place, record("a", poison), record("b", BODY)) == ["a"]


def test_failure_in_a_fifo_queue_holds_up_its_own_group_alone(place: Place) -> None:
    """One batch with three groups: of those without a failure, no message comes again."""
    sent = [("a1", "A", BODY), ("b1", "B", BODY), ("a2", "A", "{"), ("b2", "B", BODY), ("a3", "A", BODY)]
    sent += [("c1", "C", TEST_EVENT), ("b3", "B", BODY), ("d1", "D", "{"), ("a4", "A", TEST_EVENT)]
    records = [record(key, body) for key, _, body in sent]
    for each, (key, group, _) in zip(records, sent, strict=True):
        each["eventSourceARN"] += ".fifo"
        each["attributes"] |= {"MessageGroupId": group, "MessageDeduplicationId": f"once-{key}"}
    assert failed(place, *records) == ["a2", "a3", "d1", "a4"]
    answered = {path.split("once-")[1] for path in place.store.list_paths("outbox")}
    assert answered == {"a1.json", "b1.json", "b2.json", "b3.json"}
    assert failed(place, *(each for each in records if each["messageId"] in ("b1", "a3"))) == []


@pytest.mark.parametrize(
    "event",
    [
        {"detail-type": "EC2 Instance", "detail": {}},
        {"detail-type": "Pilotlight Inference", "detail": {"s3_uri": "s3://b/inbox/a", "inputs": []}},
        {"detail-type": "Pilotlight Inference", "detail": {"s3_uri": 7}},
        {"detail-type": "Pilotlight Inference"},
        {},
    ],
)
def test_an_event_of_another_form_is_refused(event: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        parse_bus_event(event)


def test_a_sender_uses_sqs_and_eventbridge(aws_environment: dict[str, str]) -> None:
    import boto3

    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName="replies")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sender = Dispatcher([arn])
    sender.send_reply(arn, "a", b'{"id":"1"}', "s3://b/outbox/messages/a.json")
    sender.send_reply(arn, "b", b"x" * 300_000, "s3://b/outbox/messages/b.json")
    found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"])["Messages"]
    bodies = {each["MessageAttributes"]["in_reply_to"]["StringValue"]: each["Body"] for each in found}
    assert bodies == {"a": '{"id":"1"}', "b": '{"s3_uri": "s3://b/outbox/messages/b.json"}'}
    sender.request_resume("s3://b/inbox/a.jsonl")


def test_messages_with_poison_duplicates_and_crashes_are_answered_once() -> None:
    seen = queue.run(60, 1, queue.Weather(deadly=3, again=4, receives=4))
    assert seen["failures"] == []
    assert seen["crashes"] >= 1
    assert seen["redeliveries"] >= seen["crashes"]
    assert seen["answers"] == seen["distinct"]["good"] + seen["distinct"]["late"]
    assert seen["redriven"] == (seen["dead"], seen["dead"])


def test_neither_boto3_nor_powertools_is_imported_before_it_is_needed() -> None:
    code = "import sys, functions.batch_worker.handler; print(*{name.split('.')[0] for name in sys.modules})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "layers" / "core"), str(ROOT)))}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = done.stdout.split()
    assert "onnxruntime" in found
    assert not {"boto3", "botocore", "aws_lambda_powertools", "torch", "onnx", "sklearn"} & set(found)


def test_the_registry_is_not_written(place: Place) -> None:
    before = {path: place.store.get(path).e_tag for path in place.store.list_paths("models")}
    assert not failed(place, record("a", BODY))
    assert {path: place.store.get(path).e_tag for path in Registry(place.store).store.list_paths("models")} == before


def test_what_is_answered_is_kept_as_the_predict_function_keeps_it(place: Place) -> None:
    handle = build_batch_worker(Settings(capture_rate=1.0, capture_seconds=3600), place.store)
    handle({"Records": [record("a", BODY), record("b", {"model_name": "double", "inputs": "secret"})]}, None)
    (path,) = place.store.list_paths("captures/double/1")
    line = msgspec.json.decode(gzip.decompress(place.store.get(path).data), type=CaptureRecord)
    assert (len(line.features), len(line.answers)) == (3, 3)
