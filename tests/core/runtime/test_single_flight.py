import threading
import time

import pytest

from pilotlight.errors import StoreError
from pilotlight.runtime.single_flight import SingleFlight


def test_one_load_serves_all_who_wait() -> None:
    began, go = [], threading.Event()

    def call(key: str) -> str:
        began.append(key)
        assert go.wait(10)
        return key.upper()

    loads = SingleFlight(call)
    first, second, other = loads.start("a"), loads.start("a"), loads.start("b")
    assert first is second is loads.find_running("a")
    assert not first.wait_until(time.monotonic())
    go.set()
    assert all(load.wait_until(float("inf")) for load in (first, other))
    assert (first.result(), other.result()) == ("A", "B")
    assert sorted(began) == ["a", "b"]
    assert loads.running() == []


def test_what_fails_is_raised_by_each_who_waits_and_tried_again() -> None:
    tries = []

    def call(key: str) -> str:
        tries.append(key)
        if len(tries) == 1:
            raise StoreError("away")
        return key

    loads = SingleFlight(call)
    failed = loads.start("a")
    assert failed.wait_until(float("inf"))
    for _ in range(2):
        with pytest.raises(StoreError, match="away"):
            failed.result()
    again = loads.start("a")
    assert again.wait_until(float("inf"))
    assert again.result() == "a"


def test_all_that_run_are_waited_for() -> None:
    go, ended = threading.Event(), []

    def call(key: str) -> None:
        assert go.wait(10)
        ended.append(key)

    loads = SingleFlight(call)
    loads.start("a")
    loads.start("b")
    loads.wait_for_all(time.monotonic())
    assert ended == []
    go.set()
    loads.wait_for_all(float("inf"))
    assert sorted(ended) == ["a", "b"]
