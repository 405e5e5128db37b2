"""What events mean to this function: records of SQS, S3's and our own events by EventBridge, S3's own notifications.

Sources of the forms: Amazon SQS message attributes; Lambda with SQS (event of an event source mapping); Amazon S3 event
message structure for EventBridge, and Event message structure. It knows forms, not what is done about them.
"""

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import unquote_plus

import msgspec
from msgspec import Struct

from pilotlight.aws.eventbridge import INFERENCE
from pilotlight.errors import InvalidInputError
from pilotlight.observability import correlation

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


def is_notification(records: Any) -> bool:  # noqa: ANN401 - anything that somebody sent
    """Whether they are S3's own, of a bucket that tells this function, or a queue, without EventBridge."""
    first = records[0] if isinstance(records, list) and records else None
    return isinstance(first, Mapping) and first.get("eventSource") == "aws:s3"


def of_notification(record: Mapping[str, Any]) -> Job:
    """The file that a record of S3's tells of, whose key is encoded as in a form, unlike EventBridge's."""
    name, told = record.get("eventName"), record.get("s3")
    if not str(name).startswith("ObjectCreated:") or not isinstance(told, Mapping):
        raise InvalidInputError(f"The notification {name!r} is none of ObjectCreated.")
    uri = f"s3://{told['bucket']['name']}/{unquote_plus(told['object']['key'])}"
    who, ids = record.get("userIdentity") or {}, record.get("responseElements") or {}
    return Job(uri, str(who.get("principalId", "")), str(ids.get("x-amz-request-id", "")))


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
    if (b'"detail-type"' in body or b'"aws:s3"' in body) and (event := as_event(body)) is not None:
        return of_event(event) if "detail" in event else of_notification(event["Records"][0])
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
    """The event of EventBridge, or S3's notification of one file, that the body is, if it is one."""
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    alone = is_notification(content.get("Records")) and len(content["Records"]) == 1  # as S3 writes them
    return content if alone or {"detail-type", "detail"} <= content.keys() else None
