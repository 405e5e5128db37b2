"""Take messages out of the envelopes in which AWS's services deliver them, and tell what is only chatter.

    SNS                  {"Type": "Notification", "TopicArn", "Message"}, unless its delivery is raw
    Lambda destinations  {"requestContext", "requestPayload", "responsePayload"}: the answer, or what failed
    SQS, S3, SNS         {"Records": [...]}: each of them
    EventBridge Pipes    [...]: records without the object around them
    EventBridge          {"source", "detail-type", "detail"}

A test event of S3, a confirmation of SNS, a deletion of a file and any other event of AWS's services ask for nothing.
They are dropped: as errors they would come again, and then raise the alarm of the dead-letter queue. Nothing is
fetched, not even the URL of a confirmation. Sources: S3, Event message structure; SNS, message and JSON formats;
Lambda, asynchronous invocation records.
"""

import base64
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from pilotlight.aws.eventbridge import INFERENCE_DETAIL_TYPE

OBJECT_CREATED = "Object Created"  # detail-type of S3's
MAX_DEPTH = 5  # envelopes in each other: a topic, a destination, a queue's record, and S3's own
SNS_KEYS = frozenset({"Type", "MessageId", "TopicArn"})
DESTINATION_KEYS = frozenset({"requestContext", "requestPayload"})
EVENT_KEYS = frozenset({"detail-type", "detail"})
# In the bytes of every envelope, so that other bodies are not decoded for nothing.
SIGNS = (b'"detail-type"', b':s3"', b'"s3:TestEvent"', b'"TopicArn"', b'"requestPayload"', b'"aws:sqs"', b'"aws:sns"')

ENCODED_OBJECT = (b"eyI", b"eyA", b"eyJ", b"ewo", b"ew0", b"ewk", b"e30")  # base64 of how an object begins
QUOTED_OBJECT = (b'"{\\"', b'"{ ', b'"{\\n')


class Letter(Struct, frozen=True):
    """What was in an envelope: a message's body, an event of the bus, a record of S3, or chatter, by its name."""

    body: bytes = b""
    attributes: Mapping[str, str] = {}
    key: str = ""  # the id of the innermost envelope that has one
    event: Mapping[str, Any] | None = None
    notification: Mapping[str, Any] | None = None
    chatter: str = ""


def open_message(body: bytes, attributes: Mapping[str, str] = {}, key: str = "", depth: int = 0) -> Iterator[Letter]:
    """Yield what is in the body of a message: usually the body itself."""
    body = unwrap_body(body)
    content = parse_envelope(body) if depth < MAX_DEPTH else None
    letters = open_event(content, key, depth) if content is not None else None
    if letters is None:
        yield Letter(body=body, attributes=attributes, key=key)
    else:
        yield from letters


def unwrap_body(body: bytes) -> bytes:
    """Return the JSON in a body that is base64 of it, or a text of JSON with it, as some libraries send; else the body.

    None of these could be meant as it is: base64 is no JSON, and a model's text does not begin as an object.
    """
    text = body.strip()
    if text.startswith(ENCODED_OBJECT):
        with suppress(ValueError):
            return base64.b64decode(b"".join(text.split()), validate=True)
    if text.startswith(QUOTED_OBJECT):
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.json.decode(text, type=str).encode()
    return body


def open_event(content: Mapping[str, Any], key: str = "", depth: int = 0) -> Iterator[Letter] | None:
    """Open an event; return None for one that is no envelope."""
    if content.get("Event") == "s3:TestEvent":
        return iter((Letter(chatter="s3:TestEvent"),))
    if content.keys() >= SNS_KEYS:
        return open_topic_message(content, depth)
    if content.keys() >= DESTINATION_KEYS and isinstance(content["requestContext"], Mapping):
        return open_destination(content, key, depth)
    if content.keys() >= EVENT_KEYS:
        return iter((classify_bus_event(content),))
    records = content.get("Records")
    if isinstance(records, list) and records and all(get_source(each) for each in records):
        return open_records(records, depth)
    return None


def open_topic_message(content: Mapping[str, Any], depth: int) -> Iterator[Letter]:
    """Open what SNS delivers to a queue; its own messages ask whether the queue wants to be subscribed."""
    if content["Type"] != "Notification":
        yield Letter(chatter=f"SNS {content['Type']}"[:100])
        return
    attributes = content.get("MessageAttributes") or {}
    texts = {name: str(value.get("Value") or "") for name, value in attributes.items() if isinstance(value, Mapping)}
    yield from open_message(str(content.get("Message", "")).encode(), texts, str(content["MessageId"]), depth + 1)


def open_destination(content: Mapping[str, Any], key: str, depth: int) -> Iterator[Letter]:
    """Open the record of an asynchronous invocation: what it answered, or what it was asked where it failed."""
    context = content["requestContext"]
    has_answered = context.get("condition") == "Success"
    payload = content.get("responsePayload") if has_answered else content["requestPayload"]
    if not isinstance(payload, Mapping):
        yield Letter(chatter="a Lambda destination without a payload")
        return
    body = msgspec.json.encode(payload)
    yield from open_message(body, {}, str(context.get("requestId") or key), depth + 1)


def classify_bus_event(event: Mapping[str, Any]) -> Letter:
    """Return an event of the bus, or that it is chatter: one of AWS's services other than a new object."""
    kind, source = str(event["detail-type"]), str(event.get("source", ""))
    if source.startswith("aws.") and kind not in (OBJECT_CREATED, INFERENCE_DETAIL_TYPE):
        return Letter(chatter=f"{source} {kind}"[:100])
    return Letter(event=event)


def open_records(records: list[Mapping[str, Any]], depth: int) -> Iterator[Letter]:
    """Open the records of a queue, a topic or a bucket, also those of a compatible store: minio:s3."""
    for record in records:
        source = get_source(record)
        if source.endswith(":s3"):
            name = str(record.get("eventName")).removeprefix("s3:")
            is_created = name.startswith("ObjectCreated:")
            yield Letter(notification=record) if is_created else Letter(chatter=f"S3 {name}"[:100])
        elif source == "aws:sns" and isinstance(record.get("Sns"), Mapping) and record["Sns"].keys() >= SNS_KEYS:
            yield from open_topic_message(record["Sns"], depth)
        elif source == "aws:sqs":
            yield from open_message(
                str(record.get("body", "")).encode(), {}, str(record.get("messageId", "")), depth + 1
            )
        else:
            yield Letter(chatter=f"a record of {source}"[:100])


def get_source(record: object) -> str:
    """Return which service a record is of; SNS spells the key in its own way."""
    if not isinstance(record, Mapping):
        return ""
    source = record.get("eventSource") or record.get("EventSource") or ""
    return source if isinstance(source, str) and ":" in source else ""


def parse_envelope(body: bytes) -> dict[str, Any] | None:
    """Decode a body that may be an envelope; return None for any other."""
    if not any(sign in body for sign in SIGNS):
        return None
    try:
        content = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
