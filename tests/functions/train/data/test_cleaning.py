"""What cannot be learned from is left out of a table and counted; everything else stays, in its order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from functions.train.data.cleaning import CleaningReport, clean_table

NAMES = ("a", "b", "c")


def test_missing_values_duplicates_and_constant_columns_are_counted() -> None:
    rows = np.array([[2, 7, 1], [np.nan, 7, 1], [1, 7, 5], [2, 7, 1], [3, 7, np.inf], [2, 7, 1.0]])
    answers = np.array([0, 0, 1, 0, 1, 1.0])
    kept, labels, names, found = clean_table(rows, answers, NAMES)
    assert found == CleaningReport(6, missing=2, duplicates=1, constant=("b",))
    assert kept.tolist() == [[2, 1], [1, 5], [2, 1]]  # the last has another answer: no duplicate
    assert labels.tolist() == [0, 1, 1]
    assert names == ("a", "c")
    assert str(found) == "left out of 6 rows: 2 with missing values, 1 duplicates; constant columns: b"


def test_missing_answer_is_a_missing_value() -> None:
    _, answers, _, found = clean_table(np.eye(3), np.array([1, np.nan, 2]), NAMES)
    assert (answers.tolist(), found.missing) == ([1, 2], 1)


def test_nothing_is_left_of_nothing_but_holes() -> None:
    rows, _, names, found = clean_table(np.full((4, 3), np.nan), np.zeros(4), NAMES)
    assert (rows.shape, names, found.missing) == ((0, 3), NAMES, 4)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30))
def test_cleaning_twice_is_cleaning_once(pairs: list[tuple[int, int]]) -> None:
    rows, answers = np.array(pairs, float), np.arange(len(pairs)) % 2
    once = clean_table(rows, answers, ("a", "b"))
    again = clean_table(once[0], once[1], once[2])
    assert np.array_equal(again[0], once[0])
    assert (again[3].missing, again[3].duplicates, again[3].constant) == (0, 0, ())
