"""What is said of answers is what scikit-learn, or arithmetic by hand, says of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.evaluation.diagnostics import (
    Confusion,
    compute_wilson_interval,
    diagnose_answers,
    diagnose_classification,
    measure_calibration,
)


def drawn(classes: int, examples: int, seed: int) -> tuple[Array, Array, tuple[str, ...]]:
    """Logits, labels and names."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, examples)
    logits = random.normal(size=(examples, classes)).astype(np.float32)
    logits[np.arange(examples), labels] += 1
    return logits, labels, tuple(f"c{number}" for number in range(classes))


@given(st.integers(2, 6), st.integers(1, 60), st.integers(0, 999))
def test_classes_are_scikit_learns(classes: int, examples: int, seed: int) -> None:
    logits, labels, names = drawn(classes, examples, seed)
    found, answers = diagnose_classification(logits, labels, names), logits.argmax(axis=1)
    every = range(classes)
    assert found.confusion == tuple(map(tuple, confusion_matrix(labels, answers, labels=every).tolist()))
    expected = precision_recall_fscore_support(labels, answers, labels=every, zero_division=0)
    for index, one in enumerate(found.classes):
        mine = (one.precision or 0, one.recall or 0, one.f1 or 0, one.support)
        assert mine == pytest.approx([column[index] for column in expected])
        assert one.predicted == int((answers == index).sum())
        assert (one.recall is None) == (one.support == 0)
        assert (one.precision is None) == (one.predicted == 0)
    assert found.calibration.accuracy == pytest.approx((answers == labels).mean())
    assert sum(confusion.count for confusion in found.worst) <= (answers != labels).sum()


def test_collapse_of_a_class_is_visible() -> None:
    logits = np.array([[2, 1, 0], [2, 1, 0], [2, 1, 0], [0, 1, 2]], np.float32)
    found = diagnose_classification(logits, np.array([0, 1, 1, 2]), ("a", "b", "c"))
    assert found.collapsed == ("b",)
    assert (found.classes[1].recall, found.classes[1].precision, found.classes[1].f1) == (0.0, None, 0.0)
    assert found.worst == (Confusion("b", "a", 2, 1.0),)


def test_whole_matrix_is_left_out_where_it_would_be_huge() -> None:
    found = diagnose_classification(*drawn(101, 500, 0))
    assert found.confusion == ()
    assert len(found.worst) == 20
    assert len(found.classes) == 101
    counts = [confusion.count for confusion in found.worst]
    assert counts == sorted(counts, reverse=True)


def test_calibration_by_hand() -> None:
    sure = np.array([0.95, 0.95, 0.95, 0.95, 0.55])  # bins 15 and 9 of 15
    logits = np.log(np.column_stack([sure, 1 - sure])) + 700  # a shift changes nothing, and nothing overflows
    found = measure_calibration(logits, np.array([0, 0, 0, 1, 0]))
    assert found.ece == pytest.approx((4 * (0.95 - 0.75) + (1 - 0.55)) / 5)
    assert (found.confidence, found.accuracy) == pytest.approx((0.87, 0.8))
    filled = [one for one in found.bins if one.count]
    assert [(one.count, one.accuracy) for one in filled] == [(1, 1.0), (4, 0.75)]
    assert all(one.low < one.confidence <= one.high for one in filled)


@given(st.integers(2, 5), st.integers(1, 50), st.integers(0, 99))
def test_every_answer_is_in_one_bin(classes: int, examples: int, seed: int) -> None:
    logits, labels, _ = drawn(classes, examples, seed)
    for scale in (0.0, 1.0, 1e3):  # from all alike to wholly sure
        found = measure_calibration(logits * np.float32(scale), labels)
        assert sum(one.count for one in found.bins) == examples
        assert 0 <= found.ece <= 1


def test_interval_is_wilsons() -> None:
    found = compute_wilson_interval(81, 263)  # Newcombe, Statistics in Medicine 17, 1998, table I, method 3
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    found = compute_wilson_interval(0, 20)
    assert (found.low, round(found.high, 4)) == (0.0, 0.1611)
    assert compute_wilson_interval(36, 36).high == 1


def test_residuals_by_hand() -> None:
    truth = np.array([[1], [2], [3], [4]], np.float32)
    found = diagnose_answers(truth + np.array([[1], [-1], [1], [3]], np.float32), Dataset(truth, truth, ())).regression
    assert found is not None
    assert (found.bias, found.largest) == (1.0, 3.0)
    assert found.deviation == pytest.approx(2**0.5)
    assert found.spread == pytest.approx(1.25**0.5)
    assert found.quantiles["50%"] == 1.0


def test_tokens_have_neither_classes_nor_residuals() -> None:
    tokens = np.zeros((3, 5), np.int64)
    found = diagnose_answers(np.zeros((3, 5, 7), np.float32), Dataset(tokens, tokens, ()))
    assert (found.classification, found.regression) == (None, None)
