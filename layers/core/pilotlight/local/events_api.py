"""EventBridge's PutEvents on the default bus, so that functions tell each other here by the same boto3 call as on AWS.

    POST /    X-Amz-Target: AWSEvents.PutEvents

For this machine alone, as the Invoke API beside it. A function that fails is told again, twice, as Lambda does with
what nobody waits for. Sources of the forms: Amazon EventBridge API reference, PutEvents; event patterns, of which lists
of values, prefix and wildcard are understood.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Struct, field

from pilotlight.local.background_tasks import Invoke, Unawaited
from pilotlight.local.gateway_errors import WRONG, GatewayError
from pilotlight.local.invoke_api import Receive, Scope, check_caller, read_body
from pilotlight.local.limits import Limits
from pilotlight.local.proxy_events import ACCOUNT_ID, Answer
from pilotlight.local.template import Rule

TARGET = b"AWSEvents.PutEvents"
ATTEMPTS = 3  # Lambda's, for what nobody waits for


class Entry(Struct):
    """One event as it is put."""

    source: str = field(name="Source")
    kind: str = field(name="DetailType")
    detail: str = field(name="Detail")  # JSON in a text


class Entries(Struct):
    """The body of PutEvents."""

    entries: list[Entry] = field(name="Entries")


class EventsApi:
    """Tells functions of events by the rules of a stack."""

    def __init__(self, rules: Sequence[Rule], invoke: Invoke, limits: Limits) -> None:
        self._rules = rules
        self._limit = limits.event_bytes
        self._unawaited = Unawaited(invoke, ATTEMPTS)

    def takes(self, scope: Scope) -> bool:
        """Whether a request is for this API."""
        return scope["method"] == "POST" and scope["raw_path"] == b"/" and (b"x-amz-target", TARGET) in scope["headers"]

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """Take events, and have them told."""
        check_caller(scope, dict(scope["headers"]).get(b"authorization", b""))
        try:
            asked = msgspec.json.decode(await read_body(receive, self._limit), type=Entries)
            events = [event(entry) for entry in asked.entries]
        except msgspec.DecodeError as exc:
            raise GatewayError(WRONG, f"The body is not one of PutEvents: {exc}.") from exc
        for told in events:
            for rule in self._rules:
                if matches(rule.pattern, told):
                    self._unawaited.begin(self._unawaited.tell(rule.function, json.dumps(told).encode()))
        body = json.dumps({"FailedEntryCount": 0, "Entries": [{"EventId": told["id"]} for told in events]}).encode()
        headers = [(b"content-type", b"application/x-amz-json-1.1"), (b"content-length", b"%d" % len(body))]
        return Answer(200, headers, body)


def event(entry: Entry) -> dict[str, Any]:
    """An entry as the bus hands it on; `DecodeError` when its detail is not JSON."""
    return {
        "version": "0",
        "id": str(uuid4()),
        "detail-type": entry.kind,
        "source": entry.source,
        "account": ACCOUNT_ID,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "resources": [],
        "detail": msgspec.json.decode(entry.detail),
    }


def matches(pattern: Mapping[str, Any], content: object) -> bool:
    """Whether an event has, for every field of the pattern, one of the values that stand there."""
    if not isinstance(content, Mapping):
        return False
    return all(
        matches(wanted, content.get(name))
        if isinstance(wanted, Mapping)
        else any(is_one(each, content.get(name)) for each in wanted)
        for name, wanted in pattern.items()
    )


def is_one(wanted: object, value: object) -> bool:
    """Whether a value is the one that a pattern names, or of its form; what only a deploy knows is no value here."""
    if not isinstance(wanted, Mapping):
        return wanted == value
    if not isinstance(value, str):
        return False
    if "prefix" in wanted:
        return value.startswith(str(wanted["prefix"]))
    return "wildcard" in wanted and fnmatchcase(value, str(wanted["wildcard"]))
