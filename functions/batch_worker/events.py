"""Parse the events of this function: SQS records, events of S3 and of Pilotlight by EventBridge, S3 notifications.

Sources of the forms: Amazon SQS message attributes; Lambda with SQS (event of an event source mapping); Amazon S3 event
message structure for EventBridge, and Event message structure. This module acts on none of them.
"""

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import unquote_plus

import msgspec
from msgspec import Struct

from pilotlight.aws.eventbridge import INFERENCE_DETAIL_TYPE
from pilotlight.errors import InvalidInputError
from pilotlight.observability import correlation

OBJECT_CREATED = "Object Created"  # detail-type of S3's


class InferenceMessage(Struct, frozen=True):
    """One asynchronous inference request."""

    key: str  # its answer is kept under this one; two messages with one key are one message
    body: bytes
    model: str = ""  # empty if the body names it, or no part of the message
    version: str = ""  # a number or an alias
    reply_to: str = ""  # ARN of a queue
    fresh: bool = True  # this is its first delivery, as far as the queue knows
    sender: str = ""  # SQS's SenderId, the event's source
    correlation: str = ""  # the sender's own, else the key


class FileEvent(Struct, frozen=True):
    """A file to answer line by line, by its full URI, or a batch by its id."""

    name: str
    sender: str = ""  # who wrote the file, according to S3
    correlation: str = ""  # the id that S3 gave to the upload; the uploader finds it in S3's answer


class MapStep(Struct, frozen=True):
    """A step that the state machine requests for a file or a batch."""

    step: Literal["split", "answer", "join"]
    job: str
    start: int = 0  # of the span, in bytes


WorkerEvent = InferenceMessage | FileEvent


def parse_bus_event(event: Mapping[str, Any]) -> WorkerEvent:
    """Parse an event of the bus; raise `InvalidInputError` for one that this function does not subscribe to."""
    kind, detail = event.get("detail-type"), event.get("detail")
    if kind not in (OBJECT_CREATED, INFERENCE_DETAIL_TYPE) or not isinstance(detail, Mapping):
        raise InvalidInputError(
            f"The event {kind or sorted(event)!r} is none of {OBJECT_CREATED}, {INFERENCE_DETAIL_TYPE}, SQS."
        )
    if kind == OBJECT_CREATED:
        uri = f"s3://{detail['bucket']['name']}/{detail['object']['key']}"
        return FileEvent(uri, str(detail.get("requester", "")), str(detail.get("request-id", "")))
    key, source = str(event.get("id", "")), str(event.get("source", ""))
    targets = [detail[name] for name in ("s3_uri", "batch", "job") if name in detail]
    if not targets:
        return InferenceMessage(key, msgspec.json.encode(detail), fresh=False, sender=source, correlation=key)
    if len(targets) > 1 or "inputs" in detail or not isinstance(targets[0], str):
        raise InvalidInputError("An event has either s3_uri, batch or job, which is a text, or a V2 body with inputs.")
    return FileEvent(targets[0], source, key)


def is_s3_notification(records: Any) -> bool:  # noqa: ANN401 - any JSON
    """Return whether the records are notifications of S3 itself, which a bucket sends without EventBridge."""
    first = records[0] if isinstance(records, list) and records else None
    return isinstance(first, Mapping) and first.get("eventSource") == "aws:s3"


def parse_s3_notification(record: Mapping[str, Any]) -> FileEvent:
    """Parse a record of an S3 notification, whose key is URL-encoded, unlike that of EventBridge."""
    name, s3_detail = record.get("eventName"), record.get("s3")
    if not str(name).startswith("ObjectCreated:") or not isinstance(s3_detail, Mapping):
        raise InvalidInputError(f"The notification {name!r} is none of ObjectCreated.")
    uri = f"s3://{s3_detail['bucket']['name']}/{unquote_plus(s3_detail['object']['key'])}"
    identity, ids = record.get("userIdentity") or {}, record.get("responseElements") or {}
    return FileEvent(uri, str(identity.get("principalId", "")), str(ids.get("x-amz-request-id", "")))


def parse_map_step(event: Mapping[str, Any]) -> MapStep:
    """Parse a request of the state machine."""
    try:
        return msgspec.convert(event, MapStep)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"The event is no step of the state machine: {exc}.") from exc


def parse_queue_record(record: Mapping[str, Any]) -> WorkerEvent:
    """Parse a record of SQS: a V2 body, or an event that came back from the dead-letter queue."""
    attributes = {name: value.get("stringValue") or "" for name, value in record["messageAttributes"].items()}
    system_attributes, body = record.get("attributes", {}), record["body"].encode()
    if (b'"detail-type"' in body or b'"aws:s3"' in body) and (event := parse_embedded_event(body)) is not None:
        return parse_bus_event(event) if "detail" in event else parse_s3_notification(event["Records"][0])
    deduplication_id = attributes.get("deduplication_id") or system_attributes.get("MessageDeduplicationId") or ""
    key = deduplication_id or record["messageId"]
    return InferenceMessage(
        key=key,
        body=body,
        model=attributes.get("model_name") or attributes.get("model") or "",
        version=attributes.get("model_version") or attributes.get("version") or "",
        reply_to=attributes.get("reply_to") or "",
        fresh=not deduplication_id and system_attributes.get("ApproximateReceiveCount", "1") == "1",
        sender=system_attributes.get("SenderId", ""),
        correlation=correlation.get_correlation_id(
            {correlation.CORRELATION_HEADER: attributes.get("correlation_id", "")}, key
        ),
    )


def parse_embedded_event(body: bytes) -> Mapping[str, Any] | None:
    """Parse a body that is an event of EventBridge, or S3's notification of one file; return None for any other."""
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    is_single_notification = (
        is_s3_notification(content.get("Records")) and len(content["Records"]) == 1
    )  # as S3 writes them
    return content if is_single_notification or {"detail-type", "detail"} <= content.keys() else None
