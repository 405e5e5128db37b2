"""The nightly function: a report for each version, a metric for what drifted, and the next night goes on from there."""

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from functions.drift.handler import handle
from functions.drift.nightly_report import NightlyReporter
from pilotlight.capture.hashing import KEY_PATH
from pilotlight.capture.record import CaptureRecord, capture_path
from pilotlight.contracts.codec import decode_document
from pilotlight.drift import training_profile
from pilotlight.drift.report import DriftReport
from pilotlight.errors import StoreError
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import ObjectStore, StoredObject, open_store
from tests import fakes

NIGHT = datetime(2026, 11, 25, 2, 15, tzinfo=UTC)
FOREVER = float("inf")


def rows(count: int, shift: float = 0.0) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Three columns, of which the middle one may have moved; the same ones in whatever order tests run."""
    moved = np.array([0, shift, 0])
    return np.asarray(np.random.default_rng(count).standard_normal((count, 3)) + moved, np.float64)


def publish(registry: Registry, name: str = "double") -> None:
    """A version with a profile of three normal columns, which the model doubles."""
    train = rows(1000).astype(np.float32)
    draft = msgspec.structs.replace(fakes.draft(name), profile=training_profile.PROFILE_FILE)
    found = training_profile.build_profile(draft, {"x": train}, {"y": 2 * rows(500).astype(np.float32)})
    registry.publish_version(
        draft,
        {"model.onnx": fakes.graph("double"), training_profile.PROFILE_FILE: training_profile.encode_profile(found)},
    )


def capture(store: ObjectStore, at: datetime, count: int, shift: float = 0.0, name: str = "double") -> None:
    lines = [
        CaptureRecord(
            at=at.isoformat(),
            features={f"x[{place}]": [value] for place, value in enumerate(row.tolist())},
            answers={f"y[{place}]": [2 * value] for place, value in enumerate(row.tolist())},
        )
        for row in rows(count, shift)
    ]
    content = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    store.put(capture_path(name, 1, at, "env", count), gzip.compress(content))


@pytest.fixture
def registry() -> Registry:
    made = Registry(open_store("memory://"))
    publish(made)
    return made


def night(registry: Registry, days: int = 0) -> list[str]:
    return list(NightlyReporter(registry, lambda: NIGHT + timedelta(days=days)).report_versions(FOREVER))


def reports(store: ObjectStore, name: str = "double") -> list[DriftReport]:
    return [
        decode_document(store.get(place).data, DriftReport, place)
        for place in sorted(store.list_paths(f"drift/{name}"))
    ]


def metrics(said: str) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in said.splitlines() if '"Drift"' in line)


def test_an_unchanged_world_is_reported_and_rings_no_bell(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    capture(registry.store, NIGHT - timedelta(hours=5), 300)
    assert night(registry) == ["double:1, 300 examples of 300 requests: no drift."]
    (report,) = reports(registry.store)
    assert report.drifted_names == []
    assert len(report.comparisons) == 6
    assert not list(metrics(capsys.readouterr().out))


def test_what_moved_is_named_and_counted(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    capture(registry.store, NIGHT - timedelta(hours=5), 300, shift=1.5)
    assert night(registry) == ["double:1, 300 examples of 300 requests: drifted: x[1], y[1]."]
    (found,) = metrics(capsys.readouterr().out)
    assert (found["model"], found["Drift"], found["drifted"]) == ("double", 1, ["x[1]", "y[1]"])
    emf = found["_aws"]
    assert emf["CloudWatchMetrics"][0]["Namespace"] == "Pilotlight"
    assert emf["CloudWatchMetrics"][0]["Dimensions"] == [["function"], ["function", "model"]]


def test_the_next_night_goes_on_where_the_last_one_ended(registry: Registry) -> None:
    capture(registry.store, NIGHT - timedelta(hours=5), 100)
    capture(registry.store, NIGHT - timedelta(minutes=15), 400)  # of the hour that is not over yet
    night(registry)
    capture(registry.store, NIGHT + timedelta(hours=9), 50)
    night(registry, days=1)
    first, second = reports(registry.store)
    assert (first.examples, second.examples) == (100, 450)
    assert first.until == second.since == datetime(2026, 11, 25, 1, tzinfo=UTC).isoformat()


def test_every_kind_of_store_holds_captures_and_reports(store: ObjectStore) -> None:
    found = Registry(store)
    publish(found)
    for day in range(3):
        capture(store, NIGHT + timedelta(days=day, hours=-5), 100, shift=2.0 * (day == 2))
        night(found, days=day)
    assert [report.drifted_names for report in reports(store)] == [[], [], ["x[1]", "y[1]"]]


def test_few_requests_wait_for_more(registry: Registry) -> None:
    for day in range(3):
        capture(registry.store, NIGHT + timedelta(days=day, hours=-5), 12)
    assert night(registry) == ["double:1, 12 examples of 12 requests: too few to say anything, which takes 30."]
    assert reports(registry.store) == []
    night(registry, days=2)
    assert [report.examples for report in reports(registry.store)] == [36]


def test_a_version_without_a_profile_is_said_and_passed_over(registry: Registry) -> None:
    fakes.publish(registry, "old")
    capture(registry.store, NIGHT - timedelta(hours=5), 300, name="old")
    capture(registry.store, NIGHT - timedelta(hours=5), 300)
    said = night(registry)
    assert "double:1, 300 examples of 300 requests: no drift." in said
    assert any(sentence.startswith("old:1 has no profile of its training set") for sentence in said)


def test_a_version_that_is_gone_is_said_and_passed_over(registry: Registry) -> None:
    capture(registry.store, NIGHT - timedelta(hours=5), 300, name="gone")
    assert night(registry)[0].startswith("There is no model 'gone'")


class Broken(ObjectStore):
    """A store that loses one model's captures."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner.url, inner._store)

    def get(self, path: str) -> StoredObject:
        if path.startswith("captures/broken"):
            raise StoreError("The store is away.")
        return super().get(path)


def test_one_versions_failure_is_not_the_others(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    publish(registry, "broken")
    for name in ("broken", "double"):
        capture(registry.store, NIGHT - timedelta(hours=5), 300, name=name)
    said = night(Registry(Broken(registry.store)))
    assert "broken:1 could not be compared: The store is away." in said
    assert "double:1, 300 examples of 300 requests: no drift." in said
    assert "could not be compared" in caplog.text


def test_without_time_versions_are_left_for_the_next_night(registry: Registry) -> None:
    capture(registry.store, NIGHT - timedelta(hours=5), 300)
    (said,) = NightlyReporter(registry, lambda: NIGHT).report_versions(0.0)
    assert said.startswith("double:1 is left for the next time")


def test_it_makes_the_key_of_the_hashes(registry: Registry) -> None:
    night(registry)
    key = registry.store.get(KEY_PATH).data
    night(registry, days=1)
    assert registry.store.get(KEY_PATH).data == key


def test_the_handler_answers_the_clock() -> None:
    assert handle({"detail-type": "Scheduled Event"}, None) == {"done": []}
