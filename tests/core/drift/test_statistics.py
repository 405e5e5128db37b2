"""PSI, Kolmogorov-Smirnov and chi-squared against numpy's and scipy's words for them."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from pilotlight.contracts.feature_profile import NumericHistogram
from pilotlight.drift.aggregation import clear_histogram
from pilotlight.drift.histograms import MAX_BINS, add_values, build_histogram
from pilotlight.drift.statistics import (
    GROUP_COUNT,
    PRIOR,
    chi_squared_survival,
    compute_ks,
    compute_psi,
    group_bins,
    kolmogorov_survival,
    merge_counts,
)

COUNTS = st.lists(st.integers(0, 500), min_size=2, max_size=20)


@given(st.floats(0, 400), st.integers(1, 80))
def test_chi_squared_is_scipys(value: float, freedom: int) -> None:
    assert chi_squared_survival(value, freedom) == pytest.approx(stats.chi2.sf(value, freedom), rel=1e-9, abs=1e-12)


@given(st.floats(0, 6))
def test_kolmogorovs_limit_is_scipys(scaled: float) -> None:
    assert kolmogorov_survival(scaled) == pytest.approx(stats.kstwobign.sf(scaled), rel=1e-6, abs=1e-11)


@given(COUNTS, COUNTS)
def test_psi_is_its_formula_and_the_same_both_ways(before: list[int], after: list[int]) -> None:
    width = min(len(before), len(after))
    one, other = np.array(before[:width]), np.array(after[:width])
    assume(one.sum() and other.sum())
    p, q = (one + PRIOR) / (one + PRIOR).sum(), (other + PRIOR) / (other + PRIOR).sum()
    found = compute_psi(one, other)
    assert found.statistic == pytest.approx(float(np.sum((q - p) * np.log(q / p))), abs=1e-12)
    assert found.statistic == pytest.approx(compute_psi(other, one).statistic, abs=1e-12)
    assert found.statistic >= 0
    assert 0 <= found.p_value <= 1


def test_psi_of_the_same_counts_is_nothing_and_of_none_says_nothing() -> None:
    assert compute_psi([10, 20, 30], [10, 20, 30]) == pytest.approx(compute_psi([1], [5]), abs=1e-12)
    assert compute_psi([0, 0], [3, 4]).p_value == 1.0


@given(COUNTS, COUNTS)
def test_ks_on_bins_is_scipys_on_the_bins_numbers(before: list[int], after: list[int]) -> None:
    width = min(len(before), len(after))
    one, other = before[:width], after[:width]
    assume(sum(one) > 1 and sum(other) > 1)
    samples = [np.repeat(np.arange(width), counts) for counts in (one, other)]
    assert compute_ks(one, other).statistic == pytest.approx(
        stats.ks_2samp(*samples, method="asymp").statistic, abs=1e-12
    )


@pytest.mark.parametrize(("train", "now"), [(107, 36), (400, 200), (5000, 3000)])
def test_ks_from_a_sketch_is_within_a_bin_of_the_exact_one(train: int, now: int) -> None:
    random = np.random.default_rng(train)
    before, after = random.standard_normal(train), random.standard_normal(now) + 0.3
    profile = build_histogram(before)
    found = compute_ks(profile.counts, add_values(clear_histogram(profile), after).counts)
    exact = stats.ks_2samp(before.astype(np.float32), after.astype(np.float32))
    assert exact.statistic - 1 / min(MAX_BINS, train) - 1e-9 <= found.statistic <= exact.statistic + 1e-9


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.2])
def test_the_p_value_of_ks_is_about_the_exact_one(shift: float) -> None:
    random = np.random.default_rng(3)
    before, after = random.standard_normal(60), random.standard_normal(50) + shift
    alone = NumericHistogram(tuple(np.sort(np.concatenate([before, after])).astype(np.float32).tolist()), (0,) * 111)
    found = compute_ks(add_values(alone, before).counts, add_values(alone, after).counts)
    exact = stats.ks_2samp(before, after, method="exact")
    assert found.statistic == pytest.approx(exact.statistic)
    assert found.p_value == pytest.approx(exact.pvalue, abs=0.03)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=80))
def test_groups_are_all_bins_in_order_and_about_a_tenth_each(counts: list[int]) -> None:
    slices = group_bins(counts)
    assert [place for begin, end in slices for place in range(begin, end)] == list(range(len(counts)))
    assert len(slices) <= GROUP_COUNT + 1
    assert merge_counts(counts, slices).sum() == sum(counts)
    share = sum(counts) / GROUP_COUNT
    assert all(count >= share * (1 - 1e-6) for count in merge_counts(counts, slices)[:-1])


def test_equal_bins_become_ten_groups() -> None:
    slices = group_bins([1] * 100)
    assert slices == [(begin, begin + 10) for begin in range(0, 100, 10)]


def test_psi_over_its_spread_is_about_chi_squared_where_nothing_changed() -> None:
    random = np.random.default_rng(0)
    shares = np.full(10, 0.1)
    found = [
        compute_psi(random.multinomial(1000, shares), random.multinomial(300, shares)).p_value for _ in range(2000)
    ]
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.02)
    assert math.isclose(float(np.mean(found)), 0.5, abs_tol=0.04)
