"""EventBridge's PutEvents on the default bus, so that functions send events here with the same boto3 call as on AWS.

    POST /    X-Amz-Target: AWSEvents.PutEvents

Only for callers on this machine, as with the Invoke API. A function that fails is invoked again, twice, as Lambda does
with asynchronous invocations. Sources of the forms: Amazon EventBridge API reference, PutEvents; event patterns, of
which lists of values, prefix and wildcard are implemented.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Struct, field

from pilotlight.local.background_tasks import BackgroundTasks, Invoke
from pilotlight.local.gateway_errors import INVALID_REQUEST, GatewayError
from pilotlight.local.invoke_api import Receive, Scope, check_caller, read_body
from pilotlight.local.proxy_events import ACCOUNT_ID, HttpResponse
from pilotlight.local.template import EventRule, GatewayLimits

TARGET = b"AWSEvents.PutEvents"
ATTEMPTS = 3  # Lambda's, for an asynchronous invocation


class EventEntry(Struct):
    """One entry of PutEvents."""

    source: str = field(name="Source")
    kind: str = field(name="DetailType")
    detail: str = field(name="Detail")  # JSON in a text
    resources: list[str] = field(name="Resources", default_factory=list)


class PutEventsBody(Struct):
    """The body of PutEvents."""

    entries: list[EventEntry] = field(name="Entries")


class EventsApi:
    """Invokes functions for events by the rules of a stack."""

    def __init__(self, rules: Sequence[EventRule], invoke: Invoke, limits: GatewayLimits) -> None:
        self._rules = rules
        self._limit = limits.event_bytes
        self._background_tasks = BackgroundTasks(invoke, ATTEMPTS)

    def can_handle(self, scope: Scope) -> bool:
        """Return whether a request is for this API."""
        return scope["method"] == "POST" and scope["raw_path"] == b"/" and (b"x-amz-target", TARGET) in scope["headers"]

    async def handle_request(self, scope: Scope, receive: Receive) -> HttpResponse:
        """Accept events, and invoke the functions whose rules match."""
        check_caller(scope, dict(scope["headers"]).get(b"authorization", b""))
        try:
            request = msgspec.json.decode(await read_body(receive, self._limit), type=PutEventsBody)
            events = [build_bus_event(entry) for entry in request.entries]
        except msgspec.DecodeError as exc:
            raise GatewayError(INVALID_REQUEST, f"The body is not one of PutEvents: {exc}.") from exc
        for bus_event in events:
            for rule in self._rules:
                if matches_pattern(rule.pattern, bus_event):
                    self._background_tasks.start(
                        self._background_tasks.invoke_function(rule.function, json.dumps(bus_event).encode())
                    )
        body = json.dumps({"FailedEntryCount": 0, "Entries": [{"EventId": told["id"]} for told in events]}).encode()
        headers = [(b"content-type", b"application/x-amz-json-1.1"), (b"content-length", b"%d" % len(body))]
        return HttpResponse(200, headers, body)


def build_bus_event(entry: EventEntry) -> dict[str, Any]:
    """Build the event that the bus delivers for an entry; `DecodeError` if its detail is not JSON."""
    return {
        "version": "0",
        "id": str(uuid4()),
        "detail-type": entry.kind,
        "source": entry.source,
        "account": ACCOUNT_ID,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "resources": entry.resources,
        "detail": msgspec.json.decode(entry.detail),
    }


def matches_pattern(pattern: Mapping[str, Any], content: object) -> bool:
    """Return whether an event has, for every field of the pattern, one of the pattern's values."""
    if not isinstance(content, Mapping):
        return False
    return all(
        matches_pattern(expected, content.get(name))
        if isinstance(expected, Mapping)
        else any(matches_value(each, value) for each in expected for value in list_values(content.get(name)))
        for name, expected in pattern.items()
    )


def list_values(value: object) -> list[object]:
    """List the values of an array, of which one must match; any other value is its own only one."""
    return value if isinstance(value, list) else [value]


def matches_value(expected: object, value: object) -> bool:
    """Return whether a value equals a pattern's value or has its form; a value known only on AWS never matches."""
    if not isinstance(expected, Mapping):
        return expected == value
    if not isinstance(value, str):
        return False
    if "prefix" in expected:
        return value.startswith(str(expected["prefix"]))
    return "wildcard" in expected and fnmatchcase(value, str(expected["wildcard"]))
