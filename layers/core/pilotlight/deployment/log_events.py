"""The log of a stack: the events of all its log groups from CloudWatch, merged by time, once or as they come."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from typing import Any

from pilotlight.deployment.aws_clients import translate_aws_errors
from pilotlight.deployment.stack import list_resources
from pilotlight.errors import InvalidInputError, NotFoundError

GROUP_TYPE, GROUP_SUFFIX = "AWS::Logs::LogGroup", "Logs"
FUNCTION_SUFFIX = "Function"
POLL_S = 2.0
LATE_S = 30.0  # within which CloudWatch may show an event after later ones


@dataclass(frozen=True, order=True)
class LogEvent:
    """A line of a log: when it was written, in milliseconds since 1970, by what, and its text."""

    at_ms: int
    source: str
    message: str
    id: str = ""

    @property
    def at(self) -> datetime:
        """The time of the line, in UTC."""
        return datetime.fromtimestamp(self.at_ms / 1000, UTC)


def find_log_groups(cloudformation: Any, stack: str) -> dict[str, str]:  # noqa: ANN401 - boto3 ships no types
    """Find the log groups of a stack and the stacks in it, by what writes to them: Predict, Batch, Gateway, ..."""
    found = {}
    for one in list_resources(cloudformation, stack):
        if one.type == GROUP_TYPE:
            found[one.logical_id.removesuffix(GROUP_SUFFIX) or "Training"] = one.physical_id
    return dict(sorted(found.items()))


def choose_log_groups(groups: Mapping[str, str], function: str | None) -> dict[str, str]:
    """Choose the groups of one function, by its name or a part of it; all for None.

    Raises `NotFoundError` if none has that name, and `InvalidInputError` if several begin with it.
    """
    if function is None:
        return dict(groups)
    wanted = function.lower().removesuffix(FUNCTION_SUFFIX.lower())
    exact = [name for name in groups if name.lower() == wanted]
    near = exact or [name for name in groups if name.lower().startswith(wanted)]
    if not near:
        raise NotFoundError(f"Nothing called {function!r} writes a log in this stack; these do: {', '.join(groups)}.")
    if len(near) > 1:
        raise InvalidInputError(f"{function!r} may be {' or '.join(near)}; write more of the name.")
    return {near[0]: groups[near[0]]}


class LogReader:
    """Reads the chosen log groups from a time on."""

    def __init__(self, logs: Any, groups: Mapping[str, str], text: str = "") -> None:  # noqa: ANN401
        self._logs = logs
        self._groups = groups
        self._text = text

    def read(self, start_ms: int) -> Iterator[LogEvent]:
        """Read the events since a time, in milliseconds since 1970, in the order of their times."""
        yield from merge(*(self._read_group(name, group, start_ms) for name, group in self._groups.items()))

    def follow(self, start_ms: int, wait: Callable[[float], None] = time.sleep) -> Iterator[LogEvent]:
        """Read the events since a time and, until the caller ends it, those that come.

        What comes late is told late: the last seconds are read again each time, and no event is told twice.
        """
        told: dict[tuple[str, str], int] = {}
        while True:
            fresh = [one for one in self.read(start_ms) if (one.source, one.id) not in told]
            yield from fresh
            told |= {(one.source, one.id): one.at_ms for one in fresh}
            start_ms = max([start_ms, *(at - int(LATE_S * 1000) for at in told.values())])
            told = {key: at for key, at in told.items() if at >= start_ms}
            wait(POLL_S)

    def _read_group(self, name: str, group: str, start_ms: int) -> Iterator[LogEvent]:
        """Read a group; one that is not there has nothing yet.

        The text is searched here and not by CloudWatch, whose patterns find no parts of words.
        """
        try:
            with translate_aws_errors(f"the log {group}"):
                pages = self._logs.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=start_ms)
                events = [one for page in pages for one in page["events"]]
        except NotFoundError:
            return
        for one in sorted(events, key=lambda event: event["timestamp"]):
            if self._text in one["message"]:
                yield LogEvent(one["timestamp"], name, one["message"], one["eventId"])


def compute_start_ms(seconds: float, now: float | None = None) -> int:
    """Compute the time some seconds ago, in milliseconds since 1970."""
    return int(((time.time() if now is None else now) - seconds) * 1000)
