"""The gate's metrics are the usual ones, and its bootstrap is paired."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.errors import UnsupportedError
from pilotlight.gate import metrics
from pilotlight.gate.answers import EvaluationOutputs
from pilotlight.gate.metrics import METRICS


def classified(right: list[bool], labels: list[int] | None = None) -> EvaluationOutputs:
    """Answers of two classes, right where it says so."""
    targets = np.array(labels or [0] * len(right))
    logits = np.zeros((len(right), 2), np.float32)
    logits[np.arange(len(right)), np.where(right, targets, 1 - targets)] = 1
    return EvaluationOutputs(logits, targets)


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_accuracy_is_the_share_of_right_answers(right: list[bool]) -> None:
    assert metrics.compute_metric(METRICS["accuracy"], classified(right)) == pytest.approx(sum(right) / len(right))


def test_balanced_accuracy_weighs_classes_alike() -> None:
    answers = classified([True, True, True, False], [0, 0, 0, 1])
    assert metrics.compute_metric(METRICS["balanced_accuracy"], answers) == 0.5


def test_r2_of_the_mean_is_nought_and_of_the_truth_is_one() -> None:
    truth = np.array([[1.0], [2.0], [6.0]])
    assert metrics.compute_metric(METRICS["r2"], EvaluationOutputs(truth, truth)) == 1
    assert metrics.compute_metric(METRICS["r2"], EvaluationOutputs(np.full_like(truth, 3), truth)) == pytest.approx(0)


def test_loss_of_even_odds_is_log_two_and_lower_is_better() -> None:
    even, sure = (
        EvaluationOutputs(np.zeros((4, 2)), np.zeros(4, int)),
        EvaluationOutputs(np.array([[9.0, 0]] * 4), np.zeros(4, int)),
    )
    assert metrics.compute_metric(METRICS["loss"], even) == pytest.approx(np.log(2))
    assert metrics.compute_gain(METRICS["loss"], sure, even) > 0


@pytest.mark.parametrize(("value", "found"), [(0.0, [0.3, 0.5, 1.0]), (float("nan"), [0.0, 0.0, 0.0])])
def test_answers_that_tell_no_class_from_another_are_not_right_among_the_top(value: float, found: list[float]) -> None:
    answers = EvaluationOutputs(np.full((20, 10), value, np.float32), np.arange(20) % 10)
    shares = [metrics.compute_metric(METRICS[f"top_{count}"], answers) for count in (3, 5, 10)]
    assert shares == pytest.approx(found)


def test_of_equal_scores_the_first_classes_are_among_the_top() -> None:
    answers = EvaluationOutputs(np.array([[1, 3, 3, 3, 0, 2]] * 6, np.float32), np.arange(6))
    assert metrics.compute_metric(METRICS["accuracy"], answers) == pytest.approx(1 / 6)
    shares = [metrics.compute_metric(METRICS[f"top_{count}"], answers) for count in (3, 5)]
    assert shares == pytest.approx([3 / 6, 5 / 6])


def test_a_paired_bootstrap_is_sure_of_what_is_always_worse() -> None:
    theirs = classified([True] * 95 + [False] * 5)
    ours = classified([True] * 80 + [False] * 20)
    assert metrics.compute_gain(METRICS["accuracy"], ours, theirs) == pytest.approx(-15)
    assert metrics.compute_probability_worse(METRICS["accuracy"], ours, theirs) > 0.99


def test_it_is_not_sure_of_one_example_in_a_hundred() -> None:
    ours, theirs = classified([True] * 94 + [False] * 6), classified([True] * 95 + [False] * 5)
    assert 0.5 < metrics.compute_probability_worse(METRICS["accuracy"], ours, theirs) < 0.95


def test_the_same_answers_are_never_worse() -> None:
    answers = classified([True, False, True])
    assert metrics.compute_probability_worse(METRICS["accuracy"], answers, answers) == 0


def test_recalls_come_with_their_number_of_examples() -> None:
    assert metrics.compute_recalls(classified([True, False, True], [0, 0, 1])) == {0: (0.5, 2), 1: (1.0, 1)}


def test_tokens_are_judged_one_by_one() -> None:
    answers = EvaluationOutputs(np.eye(4)[None].repeat(2, 0), np.array([[0, 1, 2, 3], [0, 1, 0, 0]]))
    assert metrics.compute_metric(METRICS["accuracy"], answers) == 0.75


def test_an_unknown_metric_says_which_there_are() -> None:
    with pytest.raises(UnsupportedError, match="knows no metric 'bleu'; it knows accuracy"):
        metrics.find_metric("bleu")
