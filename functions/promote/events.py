"""What events mean to this function: S3's, lines of the predict function's log, the clock's, the models function's.

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

from pilotlight.contracts.manifest import Errand
from pilotlight.errors import InvalidInputError

MANIFEST = re.compile(r"(?:.*/)?models/([^/]+)/versions/([1-9][0-9]*)/manifest\.json")


class Published(Struct, frozen=True):
    """A version was committed."""

    model: str
    version: int


class Stopped(Struct, frozen=True):
    """An environment no longer sends requests to a canary, and says why: a line of its log."""

    model: str
    alias: str
    version: int
    why: str


class Ticked(Struct, frozen=True):
    """Time has passed."""


class Asked(Struct, frozen=True):
    """Somebody has asked the registry's API for a promotion."""

    errand: Errand


Occurrence = Published | Stopped | Ticked | Asked


def read(event: Mapping[str, Any]) -> Iterator[Occurrence]:
    """What an event tells of; `InvalidInputError` for one that this function was never subscribed to."""
    kind = event.get("detail-type")
    if "errand" in event:
        yield asked(event)
    elif "awslogs" in event:
        yield from logged(event["awslogs"]["data"])
    elif kind == "Object Created":
        yield from committed(event["detail"]["object"]["key"])
    elif kind == "Scheduled Event":
        yield Ticked()
    else:
        raise InvalidInputError(
            f"The event {kind or sorted(event)!r} is none of Object Created, Scheduled Event, awslogs, errand."
        )


def asked(event: Mapping[str, Any]) -> Asked:
    """The errand that the models function sends; its own form, so that a wrong one is a bug of ours or a forgery."""
    try:
        return msgspec.convert(event, Asked)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"The event is no errand: {exc}.") from exc


def committed(key: str) -> Iterator[Published]:
    """The version whose manifest was written, below whatever prefix the store has; other objects mean nothing."""
    if found := MANIFEST.fullmatch(key):
        yield Published(found[1], int(found[2]))


def logged(data: str) -> Iterator[Stopped]:
    """The lines that a subscription filter brought, base64 of gzip of JSON."""
    batch = msgspec.json.decode(gzip.decompress(base64.b64decode(data)))
    for line in batch["logEvents"]:
        yield msgspec.json.decode(line["message"], type=Stopped)
