"""Values to bins: nothing is lost, the same number falls into the same bin, and a profile stays small."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pilotlight.contracts.feature_profile import CategoricalHistogram, NumericHistogram
from pilotlight.drift.aggregation import clear_histogram
from pilotlight.drift.histograms import MAX_BINS, MAX_CATEGORIES, add_values, build_histogram, choose_bin_count

FLOATS = arrays.arrays(np.float64, st.integers(1, 300), elements=st.floats(-1e30, 1e30) | st.just(np.nan))


@given(FLOATS)
def test_every_number_is_in_a_bin_or_missing(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    found = build_histogram(values)
    assert isinstance(found, NumericHistogram)
    assert sum(found.counts) + found.missing == len(values)
    assert found.counts[0] == found.counts[-1] == 0 or not found.edges
    assert len(found.edges) <= MAX_BINS + 2


@given(FLOATS, FLOATS)
def test_counting_in_parts_is_counting_at_once(
    train: np.ndarray[tuple[int], np.dtype[np.float64]], now: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> None:
    empty = clear_histogram(build_histogram(train))
    halves = add_values(add_values(empty, now[: len(now) // 2]), now[len(now) // 2 :])
    assert halves == add_values(empty, now)


def test_a_number_is_in_the_same_bin_as_float32_and_as_float64() -> None:
    exact = np.round(np.random.default_rng(0).uniform(11, 15, 500), 2)
    found = build_histogram(exact.astype(np.float32))
    assert add_values(clear_histogram(found), exact) == found


def test_edges_outlive_json() -> None:
    found = build_histogram(np.random.default_rng(0).standard_normal(1000))
    read = msgspec.json.decode(msgspec.json.encode(found), type=NumericHistogram | CategoricalHistogram)
    assert read == found


def test_what_is_less_and_more_than_training_saw_is_told_apart() -> None:
    found = add_values(
        clear_histogram(build_histogram(np.array([1.0, 2.0, 3.0]))),
        np.array([0.9, 1.0, 3.0, 3.1, np.inf, -np.inf, np.nan]),
    )
    assert isinstance(found, NumericHistogram)
    assert (found.counts[0], found.counts[-1], found.missing) == (2, 2, 1)


def test_a_frequent_number_has_a_bin_of_its_own() -> None:
    found = build_histogram(np.array([0.0] * 90 + list(range(1, 11))))
    assert isinstance(found, NumericHistogram)
    assert 90 in found.counts


def test_words_are_counted_and_rare_ones_together() -> None:
    values = np.array(["a"] * 5 + ["b"] * 3 + [None], object)
    assert build_histogram(values) == CategoricalHistogram(("a", "b"), (5, 3, 0), 1)
    assert add_values(CategoricalHistogram(("a",), (0, 0)), values) == CategoricalHistogram(("a",), (5, 3), 1)
    many = build_histogram(np.array([str(number) for number in range(500)], object))
    assert isinstance(many, CategoricalHistogram)
    assert (len(many.names), many.counts[-1]) == (MAX_CATEGORIES, 500 - MAX_CATEGORIES)


@pytest.mark.parametrize("features", [1, 30, 128, 512])
def test_a_profile_stays_below_its_bound(features: int) -> None:
    random = np.random.default_rng(0)
    found = {
        f"column {place}": build_histogram(random.standard_normal(2000), choose_bin_count(features))
        for place in range(features)
    }
    assert len(msgspec.json.encode(found)) < 200_000


@pytest.mark.parametrize(
    "wrong",
    ['{"kind":"numbers","edges":[1,2],"counts":[1,2]}', '{"kind":"numbers","edges":[2,1],"counts":[1,2,3]}',
     '{"kind":"categories","names":["a"],"counts":[1]}'],
)  # fmt: skip
def test_a_histogram_that_cannot_be_counted_in_is_refused(wrong: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(wrong, type=NumericHistogram | CategoricalHistogram)
