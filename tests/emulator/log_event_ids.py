"""CloudWatch Logs: each event has an id, by which who reads a log again knows what he has read already."""

import uuid
from collections.abc import Iterator
from typing import Any

from ministack.services import cloudwatch_logs

Event = dict[str, Any]


def extend() -> None:
    """Add all of this to the running ministack."""
    cloudwatch_logs._stream_event_range = _read_with_ids(cloudwatch_logs._stream_event_range)


def _read_with_ids(read: Any) -> Any:  # noqa: ANN401 - ministack has no types
    def read_events(events: list[Event], stream: str, start: int, end: int) -> Iterator[tuple[Event, str]]:
        for event, name in read(events, stream, start, end):
            event.setdefault("eventId", uuid.uuid4().hex)  # in the stored event, so that it stays the same
            yield event, name

    return read_events
