"""A canary is stopped for errors, slowness and drift, and for nothing else."""

import numpy as np
import pytest

from pilotlight.contracts.alias import Canary
from pilotlight.runtime.canary_monitor import MAX_CONSECUTIVE_FAILURES, CanaryMonitor, find_non_finite_output

CANARY = Canary(2, "2026-11-24T00:00:00+00:00", min_requests=50)


def logits(*classes: int) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[list(classes)]


@pytest.fixture
def trial() -> CanaryMonitor:
    """With a champion that answers in 1 ms, one class as often as the other."""
    trial = CanaryMonitor(CANARY)
    for number in range(300):
        trial.record_champion(1.0, logits(number % 3))
    return trial


def test_a_canary_like_the_champion_goes_on(trial: CanaryMonitor) -> None:
    assert [why for number in range(1000) if (why := trial.record_success(1.2, logits(number % 3)))] == []


def test_a_few_failures_in_a_row_stop_it_at_once(trial: CanaryMonitor) -> None:
    assert [trial.record_failure("no") for _ in range(MAX_CONSECUTIVE_FAILURES)] == [
        None,
        None,
        "its last 3 requests failed: no",
    ]


def test_it_is_stopped_once(trial: CanaryMonitor) -> None:
    assert len([why for _ in range(10) if (why := trial.record_failure("no"))]) == 1


def test_a_share_of_failures_above_the_limit_stops_it(trial: CanaryMonitor) -> None:
    said = [
        trial.record_failure("no") if number % 25 == 24 else trial.record_success(1.0, None) for number in range(50)
    ]
    assert [why for why in said if why] == ["2 of its last 50 requests failed, 4.00% where 1.00% are let through: no"]


def test_one_failure_among_many_does_not(trial: CanaryMonitor) -> None:
    said = [trial.record_failure("no") if number == 150 else trial.record_success(1.0, None) for number in range(400)]
    assert not any(said)


def test_what_began_to_fail_late_is_seen_soon(trial: CanaryMonitor) -> None:
    for _ in range(5000):
        trial.record_success(1.0, None)
    assert trial.record_failure("no") is trial.record_failure("no") is None
    assert trial.record_failure("no") is not None


def test_slowness_beyond_ratio_and_allowance_stops_it(trial: CanaryMonitor) -> None:
    said = [trial.record_success(7.0, None) for _ in range(50)]
    assert said[-1] == "it takes 7.00 ms, the champion 1.00, more than 2 times as long"
    assert not any(said[:-1])


def test_three_times_a_millisecond_is_no_reason(trial: CanaryMonitor) -> None:
    assert not any(trial.record_success(3.0, None) for _ in range(200))


def test_answers_of_another_kind_stop_it(trial: CanaryMonitor) -> None:
    said = [trial.record_success(1.0, logits(0)) for _ in range(200)]
    assert said[-1] == "its answers are 0.67 away from the champion's, more than 0.25"
    assert not any(said[:-1])


def test_a_number_has_no_classes_to_drift(trial: CanaryMonitor) -> None:
    assert not any(trial.record_success(1.0, np.full((1, 1), 9.0, np.float32)) for _ in range(400))


def test_nan_is_no_answer() -> None:
    assert find_non_finite_output({"y": np.array([1.0, np.nan])}) == "output 'y' is NaN or infinite"
    assert find_non_finite_output({"y": np.array([1.0]), "label": np.array([b"a"], object)}) is None
