"""When the fast session takes the slow one's place."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from pilotlight.runtime.deferred_prepacking import RUNS_BEFORE_PREPACKING, DeferredPrepacking


class Opener:
    """Opens sessions that are words, and may be told to fail or to wait."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.broken: set[str] = set()
        self.may_go_on, self.closed = Event(), Event()
        self.may_go_on.set()

    def slow(self) -> str:
        return self._open("slow")

    def fast(self) -> str:
        self.may_go_on.wait(10)
        return self._open("fast")

    def _open(self, word: str) -> str:
        if word in self.broken:
            raise MemoryError(word)
        self.opened.append(word)
        return word

    def speeds(self) -> DeferredPrepacking:
        speeds = DeferredPrepacking(self.slow, self.fast)
        speeds.release_files = self.closed.set
        return speeds


@pytest.fixture
def opener() -> Opener:
    return Opener()


def asked(speeds: DeferredPrepacking, times: int) -> list[Any]:
    return [speeds() for _ in range(times)]


def test_few_runs_are_slow_and_open_nothing_more(opener: Opener) -> None:
    assert set(asked(opener.speeds(), RUNS_BEFORE_PREPACKING - 1)) == {"slow"}
    assert opener.opened == ["slow"]
    assert not opener.closed.is_set()


def test_after_some_runs_the_fast_one_takes_over_once(opener: Opener) -> None:
    speeds = opener.speeds()
    asked(speeds, RUNS_BEFORE_PREPACKING)
    assert opener.closed.wait(10)
    assert asked(speeds, 20) == ["fast"] * 20
    assert opener.opened == ["slow", "fast"]


def test_a_run_that_comes_while_it_opens_waits_for_it(opener: Opener) -> None:
    speeds = opener.speeds()
    opener.may_go_on.clear()
    asked(speeds, RUNS_BEFORE_PREPACKING - 1)
    with ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(speeds) for _ in range(2)]
        assert opener.opened == ["slow"]
        opener.may_go_on.set()
        assert {answer.result(10) for answer in answers} <= {"slow", "fast"}
    assert opener.closed.wait(10)
    assert speeds() == "fast"


def test_settling_opens_the_fast_one_at_once_and_only_once(opener: Opener) -> None:
    speeds = opener.speeds()
    speeds.prepack_now()
    speeds.prepack_now()
    assert asked(speeds, 20) == ["fast"] * 20
    assert opener.opened == ["slow", "fast"]


def test_where_the_fast_one_does_not_open_the_slow_one_stays(opener: Opener) -> None:
    opener.broken.add("fast")
    speeds = opener.speeds()
    speeds.prepack_now()
    assert speeds() == "slow"
    assert opener.closed.is_set()


def test_where_nothing_opens_any_more_it_is_said(opener: Opener) -> None:
    speeds = opener.speeds()
    opener.broken |= {"fast", "slow"}
    with pytest.raises(MemoryError):
        speeds.prepack_now()
    with pytest.raises(MemoryError):
        speeds()
    assert opener.closed.is_set()


def test_what_it_needed_is_gone_before_anybody_gets_the_fast_one(opener: Opener) -> None:
    speeds, seen = opener.speeds(), list[bool]()
    speeds.release_files = lambda: seen.append(speeds._current.done())
    speeds.prepack_now()
    assert seen == [False]


def test_what_cannot_be_cleared_away_fails_nobody(opener: Opener) -> None:
    def fails() -> None:
        raise OSError("busy")

    speeds = opener.speeds()
    speeds.release_files = fails
    speeds.prepack_now()
    assert speeds() == "fast"
