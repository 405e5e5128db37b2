"""Parse the events of this function: SQS records, events of S3 and of Pilotlight by EventBridge, S3 notifications.

Sources of the forms: Amazon SQS message attributes; Lambda with SQS (event of an event source mapping); Amazon S3 event
message structure for EventBridge, and Event message structure. This module acts on none of them.
"""

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import unquote_plus

import msgspec
from msgspec import Struct

from functions.batch_worker.envelopes import OBJECT_CREATED, Letter, open_event, open_message
from pilotlight.aws.eventbridge import INFERENCE_DETAIL_TYPE
from pilotlight.errors import InvalidInputError
from pilotlight.observability import correlation


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


class Chatter(Struct, frozen=True):
    """What a service tells of itself, with nothing to answer."""

    kind: str


WorkerEvent = InferenceMessage | FileEvent


def parse_bus_event(event: Mapping[str, Any]) -> WorkerEvent:
    """Parse an event of the bus; raise `InvalidInputError` for one that this function does not subscribe to."""
    kind, detail = event.get("detail-type"), event.get("detail")
    if kind not in (OBJECT_CREATED, INFERENCE_DETAIL_TYPE) or not isinstance(detail, Mapping):
        raise InvalidInputError(
            f"The event {kind or sorted(event)!r} is none of {OBJECT_CREATED}, {INFERENCE_DETAIL_TYPE}, SQS."
        )
    if kind == OBJECT_CREATED:
        try:
            uri = f"s3://{detail['bucket']['name']}/{detail['object']['key']}"
        except (KeyError, TypeError) as exc:
            raise InvalidInputError(f"The event {OBJECT_CREATED!r} names no bucket and object.") from exc
        return FileEvent(uri, str(detail.get("requester", "")), str(detail.get("request-id", "")))
    key, source = str(event.get("id", "")), str(event.get("source", ""))
    targets = [detail[name] for name in ("s3_uri", "batch", "job") if name in detail]
    if not targets:
        return InferenceMessage(key, msgspec.json.encode(detail), fresh=False, sender=source, correlation=key)
    if len(targets) > 1 or "inputs" in detail or not isinstance(targets[0], str):
        raise InvalidInputError("An event has either s3_uri, batch or job, which is a text, or a V2 body with inputs.")
    return FileEvent(targets[0], source, key)


def parse_s3_notification(record: Mapping[str, Any]) -> FileEvent:
    """Parse a record of an S3 notification, whose key is URL-encoded, unlike that of EventBridge."""
    try:
        bucket, key = record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"])
    except (KeyError, TypeError, AttributeError) as exc:
        raise InvalidInputError("The notification names no bucket and object.") from exc
    uri = f"s3://{bucket}/{key}"
    identity, ids = record.get("userIdentity") or {}, record.get("responseElements") or {}
    return FileEvent(uri, str(identity.get("principalId", "")), str(ids.get("x-amz-request-id", "")))


def parse_map_step(event: Mapping[str, Any]) -> MapStep:
    """Parse a request of the state machine."""
    try:
        return msgspec.convert(event, MapStep)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"The event is no step of the state machine: {exc}.") from exc


def parse_queue_record(record: Mapping[str, Any]) -> list[WorkerEvent | Chatter]:
    """Parse a record of SQS: V2 bodies, or events that came back from the dead-letter queue or by way of a topic."""
    given = record.get("messageAttributes") or {}  # a queue has them even if empty, not all that relays it
    attributes = {name: str(value.get("stringValue") or "") for name, value in given.items()}
    system_attributes = record.get("attributes") or {}
    deduplication_id = attributes.get("deduplication_id") or system_attributes.get("MessageDeduplicationId") or ""
    is_fresh = not deduplication_id and system_attributes.get("ApproximateReceiveCount", "1") == "1"
    key, sender = deduplication_id or record["messageId"], system_attributes.get("SenderId", "")
    letters = list(open_message(record["body"].encode(), attributes))
    return [
        parse_letter(letter, attributes, key if len(letters) == 1 else f"{key}-{place}", sender=sender, fresh=is_fresh)
        for place, letter in enumerate(letters)
    ]


def parse_service_event(event: Mapping[str, Any]) -> list[WorkerEvent | Chatter] | None:
    """Parse an event with which a service invokes this function itself; None for one of another form."""
    letters = open_event(event)
    return None if letters is None else [parse_letter(letter, {}, letter.key) for letter in letters]


def parse_letter(
    letter: Letter, attributes: Mapping[str, str], key: str, *, sender: str = "", fresh: bool = False
) -> WorkerEvent | Chatter:
    """Parse what was in an envelope; attributes of the envelope precede those of the record."""
    if letter.chatter:
        return Chatter(letter.chatter)
    if letter.event is not None:
        return parse_bus_event(letter.event)
    if letter.notification is not None:
        return parse_s3_notification(letter.notification)
    attributes = {**attributes, **letter.attributes}
    return InferenceMessage(
        key=key,
        body=letter.body,
        model=attributes.get("model_name") or attributes.get("model") or "",
        version=attributes.get("model_version") or attributes.get("version") or "",
        reply_to=attributes.get("reply_to") or "",
        fresh=fresh,
        sender=sender,
        correlation=correlation.get_correlation_id(
            {correlation.CORRELATION_HEADER: attributes.get("correlation_id", "")}, key
        ),
    )
