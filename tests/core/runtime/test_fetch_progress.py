"""How far fetches are, and how long they will take."""

from pilotlight.runtime.fetch_progress import FetchProgress, RunningFetches


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_rest_takes_as_long_as_what_has_come() -> None:
    clock = Clock()
    progress = FetchProgress(400, clock)
    progress.add(100)
    clock.now = 2.0
    assert progress.estimate_seconds_left() == 6.0


def test_nothing_is_known_at_first() -> None:
    clock = Clock()
    progress = FetchProgress(400, clock)
    clock.now = 2.0
    assert progress.estimate_seconds_left() is None  # nothing has come
    clock.now = 0.1
    progress.add(100)
    assert progress.estimate_seconds_left() is None  # too short a time


def test_a_fetch_is_found_while_it_runs_and_the_latest_one_counts() -> None:
    running, first, second = RunningFetches(), FetchProgress(1), FetchProgress(2)
    with running.track(("chat", 1), first):
        with running.track(("chat", 1), second):
            assert running.find(("chat", 1)) is second
            assert running.find(("chat", 2)) is None
        assert running.find(("chat", 1)) is None
