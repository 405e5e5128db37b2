"""Captures, read again by the hour; what is broken is passed over and said."""

import gzip
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from pilotlight.capture.reader import list_capture_files, list_captured_versions, read_records, sample_evenly
from pilotlight.capture.record import CaptureRecord, capture_path
from pilotlight.storage.object_store import ObjectStore, open_store

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def put(
    store: ObjectStore, at: datetime, model: str = "wine", version: int = 1, number: int = 0, tenant: str = ""
) -> str:
    key = capture_path(model, version, at, "env", number, tenant)
    store.put(
        key, gzip.compress(msgspec.json.encode(CaptureRecord(at=at.isoformat(), features={"x": [1.0, None]})) + b"\n")
    )
    return key


@pytest.fixture
def store() -> ObjectStore:
    return open_store("memory://")


def test_the_hours_that_are_asked_for_are_read_and_no_others(store: ObjectStore) -> None:
    hours = [put(store, NOON + timedelta(hours=hour)) for hour in range(-30, 3)]
    put(store, NOON, version=2)
    put(store, NOON, model="other")
    found = list_capture_files(store, "wine", 1, NOON - timedelta(hours=26), NOON)
    assert found == hours[4:30]
    assert list_capture_files(store, "wine", 1, NOON, NOON) == []
    assert list_capture_files(store, "nobody", 1, NOON - timedelta(days=2), NOON) == []


def test_every_version_that_something_was_kept_of_is_known(store: ObjectStore) -> None:
    for model, version in (("wine", 1), ("wine", 12), ("digits", 3)):
        put(store, NOON, model, version)
    assert sorted(list_captured_versions(store)) == [("digits", 3), ("wine", 1), ("wine", 12)]
    assert list(list_captured_versions(open_store("memory://"))) == []


def test_captures_of_every_tenant_are_read_in_the_order_of_time(store: ObjectStore) -> None:
    tenants = ("zeta", "", "acme", "Acme|x")
    put_files = [
        put(store, NOON + timedelta(hours=hour), tenant=tenant) for hour in range(-2, 1) for tenant in sorted(tenants)
    ]
    put(store, NOON, "digits", 4, tenant="acme")
    found = list_capture_files(store, "wine", 1, NOON - timedelta(hours=2), NOON)
    assert sorted(found) == sorted(put_files[:8])
    assert [path.split("/")[-2] for path in found] == ["10"] * 4 + ["11"] * 4
    assert list(list_captured_versions(store)) == [("digits", 4), ("wine", 1)]
    assert "captures/tenant=_41cme_7cx/wine/1/2026-11-25/10/env-0.jsonl.gz" in found
    assert len(list(read_records(store, found))) == 8


def test_lines_come_back_as_they_were_written(store: ObjectStore) -> None:
    (line,) = read_records(store, [put(store, NOON)])
    assert line.features == {"x": [1.0, None]}


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"no json\n"), gzip.compress(b'{"at":"now"}\n' * 99)[:-9]],
    ids=["no gzip", "no JSON", "cut"],  # gzip writes the time, and each process of the tests must find the same names
)
def test_what_is_broken_is_passed_over_and_said(
    store: ObjectStore, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    broken = capture_path("wine", 1, NOON, "broken", 0)
    store.put(broken, content)
    assert list(read_records(store, [broken, put(store, NOON)]))[-1].features == {"x": [1.0, None]}
    assert f"{broken} is not read to its end" in caplog.text


def test_of_too_many_files_some_are_read_evenly() -> None:
    names = [str(number) for number in range(10)]
    assert sample_evenly(names, 10) == names
    assert sample_evenly(names, 4) == ["0", "3", "6", "9"]
