"""Events of a log: in order of time over all groups, and followed so that none is told twice or left out."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from pilotlight.deployment.log_events import LATE_S, LogReader, choose_log_groups, compute_start_ms
from pilotlight.errors import InvalidInputError, NotFoundError

GROUPS = {"Batch": "/aws/lambda/b", "Batches": "/aws/lambda/bs", "Predict": "/aws/lambda/p"}
LATE_MS = int(LATE_S * 1000)


class FakeLogs:
    """CloudWatch Logs, which shows some events only from a later look on."""

    def __init__(self) -> None:
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.asked_from: list[int] = []

    def write(self, group: str, at_ms: int, message: str) -> None:
        event = {"timestamp": at_ms, "message": message, "eventId": f"{group}-{at_ms}-{message}"}
        self.events.setdefault(group, []).append(event)

    def get_paginator(self, name: str) -> "FakeLogs":
        assert name == "filter_log_events"
        return self

    def paginate(self, logGroupName: str, startTime: int) -> Iterator[dict[str, Any]]:  # noqa: N803 - boto3's names
        self.asked_from.append(startTime)
        for event in self.events.get(logGroupName, []):
            if event["timestamp"] >= startTime:
                yield {"events": [event]}


def test_groups_are_merged_by_time_and_searched_for_a_text() -> None:
    logs = FakeLogs()
    logs.write("/aws/lambda/p", 3000, "three")
    logs.write("/aws/lambda/p", 1000, "one")
    logs.write("/aws/lambda/b", 2000, "two")
    logs.write("/aws/lambda/b", 500, "before")
    assert [(one.source, one.message) for one in LogReader(logs, GROUPS).read(1000)] == [
        ("Predict", "one"),
        ("Batch", "two"),
        ("Predict", "three"),
    ]
    assert [one.message for one in LogReader(logs, GROUPS, "o").read(0)] == ["before", "one", "two"]


def test_what_comes_late_is_told_late_and_nothing_twice() -> None:
    logs = FakeLogs()
    logs.write("/aws/lambda/p", 100_000, "first")
    looks = 0

    def wait(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            logs.write("/aws/lambda/p", 101_000, "second")
            logs.write("/aws/lambda/b", 100_000 - LATE_MS + 1, "late")
        if looks == 2:
            logs.write("/aws/lambda/p", 101_000, "third, at the same time")

    told = [one.message for one in islice(LogReader(logs, GROUPS).follow(50_000, wait), 4)]
    assert told == ["first", "late", "second", "third, at the same time"]
    assert logs.asked_from[-1] == 101_000 - LATE_MS, "only the last seconds are read again"


def test_a_group_is_chosen_by_its_name_or_the_start_of_it() -> None:
    assert choose_log_groups(GROUPS, None) == GROUPS
    for name in ("batch", "BatchFunction", "BATCH"):
        assert choose_log_groups(GROUPS, name) == {"Batch": "/aws/lambda/b"}
    assert choose_log_groups(GROUPS, "pre") == {"Predict": "/aws/lambda/p"}
    with pytest.raises(InvalidInputError, match="'bat' may be Batch or Batches"):
        choose_log_groups(GROUPS, "bat")
    with pytest.raises(NotFoundError, match="these do: Batch, Batches, Predict"):
        choose_log_groups(GROUPS, "x")


def test_a_time_ago_is_in_milliseconds() -> None:
    assert compute_start_ms(90, now=1000.5) == 910_500
