"""A little of each fault that `python -m tests.load faults` tries at length, and what was mended because of them."""

from collections.abc import Callable

import pytest

from pilotlight.api.router import retry_headers
from pilotlight.errors import DeniedError, StoreError
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.faulty_s3 import serving
from tests.load.faults import clock, disk, idle, kills, lifetimes, slow_store
from tests.load.faults.row import Row, judge

FAULTS: dict[str, Callable[[], Row]] = {
    "a clock ahead, moves": lambda: clock.move(clock.DAY_S, "ahead"),
    "a clock back, moves": lambda: clock.move(-clock.DAY_S, "back"),
    "a clock ahead, prune": lambda: clock.prune(clock.DAY_S, "ahead"),
    "a clock back, prune": lambda: clock.prune(-clock.DAY_S, "back"),
    "a clock ahead, batch": lambda: clock.batch(clock.DAY_S, "ahead"),
    "a clock back, batch": lambda: clock.batch(-clock.DAY_S, "back"),
    "a full disk": disk.fill_disk,
    "idle, then a burst": lambda: idle.burst_after_idle(1),
    "environments": lambda: lifetimes.start_in_process(20),
    "stale reads": slow_store.read_stale,
    "lost answers to writes": lambda: slow_store.write(1, "truncated"),
    "SlowDown": lambda: slow_store.start_cold(1, "slow_down", 0.3, "SlowDown"),
}


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in slow_store.CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_promised_is_seen(fault: str) -> None:
    row = FAULTS[fault]()
    if row.seen.startswith("not tried: "):
        pytest.skip(row.seen)
    assert not row.is_broken, row.seen


def test_a_row_is_broken_by_anything_wrong() -> None:
    assert judge("a", "b", "c", []) == Row("a", "b", "c")
    assert judge("a", "b", "c", ["d"]) == Row("a", "b", "c; BROKEN: d", is_broken=True)


def test_an_answer_that_ends_in_the_middle_is_read_on() -> None:
    """By obstore, from where it ended, if the object is still the same."""
    with serving() as server:
        server.objects = {"a": b"x" * 1000}
        store = open_store(server.url)
        server.fail("truncated", "a", count=2)
        assert store.get("a").data == b"x" * 1000
        assert server.failures == 2
        server.fail("truncated", "a")
        with pytest.raises(StoreError, match="The store failed at s3://models/a"):
            store.get("a")


def test_a_store_that_failed_is_asked_again_and_one_that_denies_is_not() -> None:
    assert retry_headers(StoreError("slow")) == {"retry-after": "2"}
    assert retry_headers(DeniedError("no")) == {}


def test_publishing_through_s3_is_as_on_disk() -> None:
    """The server of these tests takes conditional writes as S3 does."""
    with slow_store.open_server() as (_, registry):
        assert registry.list_versions("double") == [1, 2]
        assert fakes.publish(registry).version == 3
        assert not kills.find_half_versions(registry, "double") + kills.find_wrong_history(registry)
