"""Verdicts: a change must be large and no accident, whatever the numbers of features and of examples."""

import numpy as np
import pytest

from pilotlight.drift.aggregation import clear_histogram
from pilotlight.drift.comparison import MIN_EXAMPLES, Comparison, compare_histograms
from pilotlight.drift.histograms import add_values, build_histogram
from pilotlight.runtime.datatypes import Array


def judged(train: Array, now: Array, tests: int = 1) -> Comparison:
    before = build_histogram(train)
    return compare_histograms("feature", "x", before, add_values(clear_histogram(before), now), tests)


def normal(size: int, mean: float = 0.0, deviation: float = 1.0) -> Array:
    """The same numbers in whatever order tests run."""
    return np.random.default_rng([size, int(100 * abs(mean)), int(100 * deviation)]).normal(mean, deviation, size)


def test_the_same_world_is_stable() -> None:
    assert judged(normal(2000), normal(500)).verdict == "stable"


@pytest.mark.parametrize(("mean", "deviation"), [(1.5, 1.0), (-1.5, 1.0), (0.0, 4.0), (0.0, 0.2)])
def test_another_world_has_drifted(mean: float, deviation: float) -> None:
    found = judged(normal(2000), normal(500, mean, deviation), tests=100)
    assert found.verdict == "drifted"
    assert found.p < 1e-6


def test_a_little_change_that_is_certain_is_a_change() -> None:
    assert judged(normal(20_000), normal(20_000, 0.4)).verdict == "changed"


def test_a_certain_change_that_is_tiny_is_none() -> None:
    found = judged(normal(100_000), normal(100_000, 0.05))
    assert found.p < 1e-6
    assert found.verdict == "stable"


def test_few_examples_say_nothing_however_far_away() -> None:
    assert judged(normal(2000), normal(MIN_EXAMPLES - 1, 10)).verdict == "too few"
    assert judged(normal(2000), normal(MIN_EXAMPLES, 10)).verdict == "drifted"


def test_more_features_ask_for_more_certainty() -> None:
    train, now = normal(300), normal(60, 0.8)
    assert judged(train, now).verdict == "drifted"
    assert judged(train, now, tests=100_000).verdict == "stable"


def test_values_that_go_missing_are_a_drift() -> None:
    now = normal(500)
    now[:250] = np.nan
    found = judged(normal(2000), now)
    assert found.verdict == "drifted"
    assert found.missing == (0.0, 0.5)
    assert found.examples == 500


def test_words_drift_and_new_ones_are_unseen() -> None:
    train = np.array(["red", "blue"] * 500, object)
    assert judged(train, np.array(["red", "blue"] * 100, object)).verdict == "stable"
    found = judged(train, np.array(["red", "green"] * 100, object))
    assert (found.verdict, found.outside, found.ks) == ("drifted", 0.5, None)
    assert {group.name: group.now for group in found.groups} == {"red": 0.5, "blue": 0.0, "others": 0.5}


def test_groups_are_shares_of_the_whole() -> None:
    found = judged(normal(1000), normal(300, 1))
    for side in ("before", "now"):
        assert sum(getattr(group, side) for group in found.groups) == pytest.approx(1, abs=1e-4)
    assert found.groups[0].name.startswith("up to ")
    assert found.groups[-1].name.startswith("above ")


def test_a_column_that_never_varied_is_compared_too() -> None:
    assert judged(np.zeros(100), np.zeros(50)).verdict == "stable"
    assert judged(np.zeros(100), np.ones(50)).verdict == "drifted"


def test_an_unchanged_world_is_called_changed_in_one_report_of_a_hundred_at_most() -> None:
    random, features, nights = np.random.default_rng(0), 8, 250
    alarms = 0
    for _ in range(nights):
        train, now = random.standard_normal((300, features)), random.standard_normal((80, features))
        words = {judged(train[:, place], now[:, place], features).verdict for place in range(features)}
        alarms += bool(words & {"changed", "drifted"})
    assert alarms <= 6  # 1 % of 250 is 2.5; more than 6 has a chance of 1 %
