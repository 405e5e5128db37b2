"""The events of this function: S3's, lines of the predict function's log, the schedule's, the registry API's.

Sources of the forms: Amazon S3 event message structure for EventBridge; CloudWatch Logs subscription filters; Amazon
EventBridge scheduled events.
"""

import base64
import gzip
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from pilotlight.contracts.promotion import PromotionRequest
from pilotlight.errors import InvalidInputError

MANIFEST_KEY = re.compile(r"(?:.*/)?models/([^/]+)/versions/([1-9][0-9]*)/manifest\.json")


class VersionPublished(Struct, frozen=True):
    """A version was committed."""

    model: str
    version: int


class CanaryFailed(Struct, frozen=True):
    """An environment stopped sending requests to a canary, and why: a line of its log."""

    model: str
    alias: str
    version: int
    why: str
    until: str = ""  # by which one trial of a version is told from another


class ScheduleTick(Struct, frozen=True):
    """The schedule's time has come."""


class PromotionRequested(Struct, frozen=True):
    """A caller of the registry's API requested a promotion."""

    request: PromotionRequest = msgspec.field(name="errand")  # as the registry API's event calls it


PromotionEvent = VersionPublished | CanaryFailed | ScheduleTick | PromotionRequested


def parse_events(event: Mapping[str, Any]) -> Iterator[PromotionEvent]:
    """Parse an event; `InvalidInputError` for one that this function does not subscribe to."""
    kind = event.get("detail-type")
    if "errand" in event:
        yield parse_promotion_request(event)
    elif "awslogs" in event:
        yield from parse_log_events(event["awslogs"]["data"])
    elif kind == "Object Created":
        yield from parse_manifest_key(event["detail"]["object"]["key"])
    elif kind == "Scheduled Event":
        yield ScheduleTick()
    else:
        raise InvalidInputError(
            f"The event {kind or sorted(event)!r} is none of Object Created, Scheduled Event, awslogs, errand."
        )


def parse_promotion_request(event: Mapping[str, Any]) -> PromotionRequested:
    """Parse the registry API's request for a promotion; the form is ours, so a wrong one is our bug or forged."""
    try:
        return msgspec.convert(event, PromotionRequested)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"The event is no errand: {exc}.") from exc


def parse_manifest_key(key: str) -> Iterator[VersionPublished]:
    """Yield the version whose manifest was written, below any prefix of the store; ignore other objects."""
    if found := MANIFEST_KEY.fullmatch(key):
        yield VersionPublished(found[1], int(found[2]))


def parse_log_events(data: str) -> Iterator[CanaryFailed]:
    """Parse the lines of a subscription filter, base64 of gzip of JSON."""
    batch = msgspec.json.decode(gzip.decompress(base64.b64decode(data)))
    for line in batch["logEvents"]:
        yield msgspec.json.decode(line["message"], type=CanaryFailed)
