"""What events mean to this function: records of SQS, S3's and our own events by EventBridge.

Sources of the forms: Amazon SQS message attributes; Lambda with SQS (event of an event source mapping); Amazon S3 event
message structure for EventBridge. It knows forms, not what is done about them.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from pilotlight import correlation
from pilotlight.bus import INFERENCE
from pilotlight.errors import InvalidInputError

CREATED = "Object Created"  # detail-type of S3's


class Message(Struct, frozen=True):
    """One inference that somebody asked for and does not wait for."""

    key: str  # its answer is kept under this one; two messages with one key are one message
    body: bytes
    model: str = ""  # empty where the body names it, or nobody does
    version: str = ""  # a number or an alias
    reply_to: str = ""  # ARN of a queue
    fresh: bool = True  # this is its first delivery, as far as the queue knows
    tenant: str = ""  # who sent it: SQS's SenderId, the event's source
    correlation: str = ""  # the sender's own, else the key


class Job(Struct, frozen=True):
    """A file to be answered line by line, by its whole address, or a batch by its id."""

    name: str
    tenant: str = ""  # who wrote the file, as S3 says
    correlation: str = ""  # the id that S3 gave to the upload; whoever uploads finds it in S3's answer


class Step(Struct, frozen=True):
    """What the state machine asks for of a job that is spread."""

    step: Literal["split", "answer", "join"]
    job: str
    start: int = 0  # of the span, in bytes


Occurrence = Message | Job


def of_event(event: Mapping[str, Any]) -> Occurrence:
    """What an event of the bus tells; `InvalidInputError` for one that this function was never subscribed to."""
    kind, detail = event.get("detail-type"), event.get("detail")
    if kind not in (CREATED, INFERENCE) or not isinstance(detail, Mapping):
        raise InvalidInputError(f"The event {kind or sorted(event)!r} is none of {CREATED}, {INFERENCE}, SQS.")
    if kind == CREATED:
        uri = f"s3://{detail['bucket']['name']}/{detail['object']['key']}"
        return Job(uri, str(detail.get("requester", "")), str(detail.get("request-id", "")))
    key, source = str(event.get("id", "")), str(event.get("source", ""))
    named = [detail[name] for name in ("s3_uri", "batch", "job") if name in detail]
    if not named:
        return Message(key, msgspec.json.encode(detail), fresh=False, tenant=source, correlation=key)
    if len(named) > 1 or "inputs" in detail or not isinstance(named[0], str):
        raise InvalidInputError("An event has either s3_uri, batch or job, which is a text, or a V2 body with inputs.")
    return Job(named[0], source, key)


def of_step(event: Mapping[str, Any]) -> Step:
    """What the state machine asks for."""
    try:
        return msgspec.convert(event, Step)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"The event is no step of the state machine: {exc}.") from exc


def of_record(record: Mapping[str, Any]) -> Occurrence:
    """What a record of SQS tells: a V2 body, or an event that was put back from the dead letters."""
    attributes = {name: value.get("stringValue") or "" for name, value in record["messageAttributes"].items()}
    told, body = record.get("attributes", {}), record["body"].encode()
    if b'"detail-type"' in body and (event := as_event(body)) is not None:
        return of_event(event)
    named = attributes.get("deduplication_id") or told.get("MessageDeduplicationId") or ""
    key = named or record["messageId"]
    return Message(
        key=key,
        body=body,
        model=attributes.get("model_name") or attributes.get("model") or "",
        version=attributes.get("model_version") or attributes.get("version") or "",
        reply_to=attributes.get("reply_to") or "",
        fresh=not named and told.get("ApproximateReceiveCount", "1") == "1",
        tenant=told.get("SenderId", ""),
        correlation=correlation.of({correlation.HEADER: attributes.get("correlation_id", "")}, key),
    )


def as_event(body: bytes) -> Mapping[str, Any] | None:
    """The event of EventBridge that the body is, if it is one."""
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return content if isinstance(content, dict) and {"detail-type", "detail"} <= content.keys() else None
