import threading
import time

import pytest

from pilotlight.errors import StoreError
from pilotlight.runtime.single_flight import Loads


def test_one_load_serves_all_who_wait() -> None:
    began, go = [], threading.Event()

    def call(key: str) -> str:
        began.append(key)
        assert go.wait(10)
        return key.upper()

    loads = Loads(call)
    first, second, other = loads.begin("a"), loads.begin("a"), loads.begin("b")
    assert first is second is loads.find("a")
    assert not first.ended_before(time.monotonic())
    go.set()
    assert all(load.ended_before(float("inf")) for load in (first, other))
    assert (first.result(), other.result()) == ("A", "B")
    assert sorted(began) == ["a", "b"]
    assert loads.under_way() == []


def test_what_fails_is_raised_by_each_who_waits_and_tried_again() -> None:
    tries = []

    def call(key: str) -> str:
        tries.append(key)
        if len(tries) == 1:
            raise StoreError("away")
        return key

    loads = Loads(call)
    failed = loads.begin("a")
    assert failed.ended_before(float("inf"))
    for _ in range(2):
        with pytest.raises(StoreError, match="away"):
            failed.result()
    again = loads.begin("a")
    assert again.ended_before(float("inf"))
    assert again.result() == "a"
