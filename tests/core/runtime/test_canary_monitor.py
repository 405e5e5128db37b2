"""A canary is stopped for failures, slowness and drift, and for nothing else."""

import re

import numpy as np
import pytest

from pilotlight.contracts.alias import Canary
from pilotlight.errors import DeadlineError, StoreError, TooLargeError
from pilotlight.runtime.canary_monitor import (
    MIN_CONSECUTIVE_FAILURES,
    WARM_UP_ANSWERS,
    Answer,
    CanaryMonitor,
    Failure,
    Finding,
    find_non_finite_output,
    format_stratum,
)
from pilotlight.runtime.trial_callers import TrialCaller

CANARY = Canary(2, "2026-11-24T00:00:00+00:00", min_requests=50)
BACKEND = TrialCaller(identity="backend")
NO = Failure("no")


def logits(*classes: int) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[list(classes)]


class Trial:
    """A monitor whose canary is warm, with every second request for either side."""

    def __init__(self, canary: Canary = CANARY) -> None:
        self.monitor = CanaryMonitor(canary, 0.5)
        for _ in range(WARM_UP_ANSWERS):
            self.ask()
        self.requests = 0

    def ask(
        self, ms: float = 1.0, classes: tuple[int, ...] = (), champion_ms: float = 1.0, rows: int = 1
    ) -> Finding | None:
        """A request of each side; what follows."""
        number = self.requests = getattr(self, "requests", 0) + 1
        champion = Answer(champion_ms, rows, logits(number % 3))
        canary = Answer(ms, rows, logits(*(classes or (number % 3,))))
        found = self.monitor.record_champion(self.monitor.start_request(BACKEND), champion)
        request = self.monitor.start_request(BACKEND)
        self.monitor.record_opening(is_open=True)
        return found or self.monitor.record_canary(request, canary)

    def fail(self, failure: Failure = NO, champion_ms: float = 1.0) -> Finding | None:
        """A request that the canary does not answer."""
        request = self.monitor.start_request(BACKEND)
        return self.monitor.record_fallback(request, Answer(champion_ms, 1, logits(0)), failure)


@pytest.fixture
def trial() -> Trial:
    return Trial()


def test_a_canary_like_the_champion_goes_on(trial: Trial) -> None:
    assert not any(trial.ask(1.2) for _ in range(1000))


def test_a_few_failures_in_a_row_stop_it_at_once(trial: Trial) -> None:
    found = [trial.fail() for _ in range(MIN_CONSECUTIVE_FAILURES + 1)]
    assert [one.kind for one in found if one] == ["failures"]
    assert found[-1] is not None or found[-2] is not None


def test_it_is_stopped_once(trial: Trial) -> None:
    assert len([found for _ in range(30) if (found := trial.fail())]) == 1


def test_a_share_of_failures_above_the_limit_stops_it(trial: Trial) -> None:
    found = [trial.fail() if number % 5 == 4 else trial.ask() for number in range(100)]
    (only,) = [one for one in found if one]
    assert only.kind == "failures"
    assert only.e_value is not None
    assert only.e_value >= 3e5
    assert only.reason.endswith("where 1.00% are let through: no")


def test_failures_at_the_allowed_rate_do_not(trial: Trial) -> None:
    assert not any(trial.fail() if number % 100 == 50 else trial.ask() for number in range(3000))


def test_what_began_to_fail_late_is_seen_soon(trial: Trial) -> None:
    for _ in range(5000):
        trial.ask()
    assert any(trial.fail() for _ in range(15))


def test_an_error_rate_of_one_allows_everything_and_of_zero_hardly_anything() -> None:
    every, none = Trial(Canary(2, "", max_error_rate=1.0)), Trial(Canary(2, "", max_error_rate=0.0))
    assert not any(every.fail() for _ in range(100))
    assert any(none.fail() if number % 10 == 9 else none.ask() for number in range(100))


def test_slowness_beyond_ratio_and_allowance_stops_it(trial: Trial) -> None:
    found = [trial.ask(7.0) for _ in range(100)]
    (only,) = [one for one in found if one]
    assert only.kind == "latency"
    form = r"it takes [67]\.\d+ ms for requests of 1 row, the champion [01]\.\d+, where 2 times as long is let through"
    assert re.fullmatch(form, only.reason)
    assert found.index(only) + 1 >= CANARY.min_requests - WARM_UP_ANSWERS


def test_three_times_a_millisecond_is_no_reason(trial: Trial) -> None:
    assert not any(trial.ask(3.0) for _ in range(500))


def test_times_are_those_of_as_many_rows(trial: Trial) -> None:
    """Large batches that all meet the canary, as a caller could arrange who chose the side."""
    for _ in range(300):
        assert trial.ask() is None
        request = trial.monitor.start_request(BACKEND)
        assert trial.monitor.record_canary(request, Answer(4000.0, 4000, None)) is None


def test_answers_of_another_kind_stop_it(trial: Trial) -> None:
    found = [trial.ask(classes=(0,)) for _ in range(400)]
    (only,) = [one for one in found if one]
    assert only.kind == "drift"
    assert "away from the champion's, where 0.25 is let through" in only.reason


def test_a_batch_of_many_rows_counts_as_one_answer(trial: Trial) -> None:
    found = [trial.ask(classes=(0,) * 1000) for _ in range(20)]
    assert not any(found)


def test_a_number_has_no_classes_to_drift(trial: Trial) -> None:
    for _ in range(400):
        request = trial.monitor.start_request(BACKEND)
        assert trial.monitor.record_canary(request, Answer(1.0, 1, np.full((1, 1), 9.0, np.float32))) is None


def test_a_canary_just_opened_may_be_slow_for_a_while() -> None:
    trial = Trial()
    for _ in range(60):
        trial.monitor.record_opening(is_open=False)
        assert not any(trial.ask(100.0) for _ in range(WARM_UP_ANSWERS))


@pytest.mark.parametrize(
    ("error", "champion_ms", "is_charged"),
    [
        (DeadlineError("over"), 10.0, True),
        (DeadlineError("over"), 9_000.0, False),  # the request needs about half of the time, on either version
        (TooLargeError("does not fit"), 10.0, True),
        (TooLargeError("does not fit"), 2_000.0, False),
        (MemoryError(), 2_000.0, False),
        (StoreError("SlowDown"), 10.0, False),
        (RuntimeError("no"), 9_000.0, True),
    ],
)
def test_a_failure_is_the_canarys_only_if_the_champion_would_not_have_failed_so(
    trial: Trial, error: Exception, champion_ms: float, is_charged: bool
) -> None:
    failure = Failure.from_error(error, 13_000.0, 13_000.0)
    found = [trial.fail(failure, champion_ms) for _ in range(20)]
    assert any(found) == is_charged


def test_nan_is_no_answer() -> None:
    assert find_non_finite_output({"y": np.array([1.0, np.nan])}) == "output 'y' is NaN or infinite"
    assert find_non_finite_output({"y": np.array([1.0]), "label": np.array([b"a"], object)}) is None


def test_rows_are_compared_by_powers_of_two() -> None:
    assert [format_stratum(rows.bit_length()) for rows in (0, 1, 4, 7)] == [
        "requests whose time is over",
        "requests of 1 row",
        "requests of 4 to 7 rows",
        "requests of 4 to 7 rows",
    ]
