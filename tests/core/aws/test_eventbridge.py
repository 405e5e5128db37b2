"""An event says of which stack it is."""

import json
from typing import Any

import pytest

from pilotlight.aws.eventbridge import EventBus
from pilotlight.errors import UnavailableError


class FakeEvents:
    """EventBridge, which keeps what it is sent."""

    def __init__(self, failed: int = 0) -> None:
        self.entries: list[dict[str, Any]] = []
        self.failed = failed

    def put_events(self, **named: list[dict[str, Any]]) -> dict[str, Any]:
        self.entries += named["Entries"]
        return {"FailedEntryCount": self.failed, "Entries": [{"ErrorCode": "no"}]}


def test_an_event_names_the_bucket_of_its_stack() -> None:
    client = FakeEvents()
    EventBus(client, "arn:aws:s3:::ours").publish("pilotlight.batches", "batch_1")
    (entry,) = client.entries
    assert entry["Resources"] == ["arn:aws:s3:::ours"]
    assert (entry["Source"], json.loads(entry["Detail"])) == ("pilotlight.batches", {"batch": "batch_1"})


def test_on_a_laptop_there_is_one_stack_which_needs_no_name() -> None:
    client = FakeEvents()
    EventBus(client).publish("pilotlight.batch", "s3://ours/inbox/a.jsonl")
    assert client.entries[0]["Resources"] == []


def test_an_event_that_is_not_taken_is_told() -> None:
    with pytest.raises(UnavailableError, match="did not take the word to go on with batch_1"):
        EventBus(FakeEvents(failed=1), "arn:aws:s3:::ours").publish("pilotlight.batches", "batch_1")
