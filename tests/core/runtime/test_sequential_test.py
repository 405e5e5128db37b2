"""The evidence of a sequential test is fair: nobody wins money against a version that does as it may."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.runtime.sequential_test import Credit, SequentialTest, compute_contrast_factors, compute_rate_factors
from pilotlight.runtime.trial_callers import UNLIMITED

shares = st.floats(0.0001, 0.9999)
ALPHA = 0.1
TRIALS = 300
FEW = 48  # of 300 trials at 10 %: exceeded by chance once in a thousand times (binomial)


@given(st.floats(0.001, 0.999))
def test_a_bet_on_failures_is_fair_at_the_allowed_rate(rate: float) -> None:
    failed, succeeded = compute_rate_factors(rate)
    for lost, won in zip(failed, succeeded, strict=True):
        assert rate * lost + (1 - rate) * won == pytest.approx(1)
        assert lost > 1 > won > 0


@given(shares, st.floats(0, 1), st.floats(0.05, 0.95), st.floats(0, 0.9))
def test_a_bet_on_the_side_is_fair_whatever_the_request(
    share: float, value: float, center: float, margin: float
) -> None:
    """The same value on both sides: who sends the request cannot make money of it."""
    sides = [
        compute_contrast_factors(share, on_trial=side, value=value, center=center, margin=margin)
        for side in (True, False)
    ]
    for trial, champion in zip(*sides, strict=True):
        assert min(trial, champion) > 0
        assert share * trial + (1 - share) * champion <= 1 + 1e-9
        if margin == 0:
            assert share * trial + (1 - share) * champion == pytest.approx(1)


@given(st.floats(0.01, 0.99), st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.9))
def test_a_bet_loses_while_the_difference_is_within_the_margin(
    share: float, champion: float, excess: float, margin: float
) -> None:
    trial = min(1.0, champion + excess * margin)
    given_trial = compute_contrast_factors(share, on_trial=True, value=trial, margin=margin)
    given_champion = compute_contrast_factors(share, on_trial=False, value=champion, margin=margin)
    for on_trial, on_champion in zip(given_trial, given_champion, strict=True):
        assert share * on_trial + (1 - share) * on_champion <= 1 + 1e-9


def test_false_alarms_are_as_rare_as_promised_however_often_one_looks() -> None:
    """At the limit itself, with callers who stop counting and come back, and looked at after every request."""
    alarms = 0
    factors = compute_rate_factors(0.05)
    for seed in range(TRIALS):
        draw, test = random.Random(seed), SequentialTest(ALPHA, 50)  # noqa: S311
        callers = [Credit(limit) for limit in (2.0, 5.0, 1e9)]
        for _ in range(400):
            test.add(factors[draw.random() >= 0.05], draw.choice(callers))
            if test.e_value >= test.threshold:
                alarms += 1
                break
    assert alarms <= FEW


def test_a_fault_that_begins_late_is_found() -> None:
    test, credit = SequentialTest(1e-5, 50), Credit(UNLIMITED)
    failed, succeeded = compute_rate_factors(0.01)
    for _ in range(20_000):
        test.add(succeeded, credit)
    assert test.e_value < 0.01
    count = 0
    while test.e_value < test.threshold and count < 15:
        test.add(failed, credit)
        count += 1
    assert count < 15


def test_endless_evidence_is_still_a_number() -> None:
    test, credit = SequentialTest(1e-5, 50), Credit(UNLIMITED)
    for _ in range(1000):
        test.add(compute_rate_factors(0.01)[0], credit)
    assert test.e_value > test.threshold


def test_one_caller_raises_the_evidence_to_his_limit_and_not_further() -> None:
    test, capped = SequentialTest(1e-5, 10**9), Credit(23.0)
    failed, _ = compute_rate_factors(0.01)
    for _ in range(100):
        test.add(failed, capped)
    assert test.e_value <= 23
    assert test.unlimited_e_value > 1e5
    for _ in range(3):
        other = Credit(23.0)
        for _ in range(100):
            test.add(failed, other)
    assert 23 < test.e_value <= 23**4
