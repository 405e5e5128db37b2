"""The metrics in closed form, and against scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics

from functions.train.evaluation.metrics import format_metric, score_outputs


def test_balanced_accuracy_is_the_mean_of_the_classes() -> None:
    logits = np.array([[2, 1.0]] * 9 + [[2, 1.0]])  # always the first class, nine times rightly
    judged = score_outputs(logits, np.array([0] * 9 + [1]), ("common", "rare"))
    assert judged.metrics["accuracy"] == 0.9
    assert judged.metrics["balanced_accuracy"] == 0.5
    assert judged.metrics["f1"] == 0  # of the second class
    assert judged.per_class == {"common": 1.0, "rare": 0.0}
    assert judged.main_metric == ("accuracy", 0.9)


def test_numbers_are_scored_as_scikit_learn_does() -> None:
    random = np.random.default_rng(5)
    truth, answers = random.normal(100, 20, (50, 1)), random.normal(100, 20, (50, 1))
    judged = score_outputs(answers, truth, ())
    assert judged.metrics["r2"] == pytest.approx(metrics.r2_score(truth, answers))
    assert judged.metrics["rmse"] == pytest.approx(metrics.root_mean_squared_error(truth, answers))
    assert judged.metrics["mae"] == pytest.approx(metrics.mean_absolute_error(truth, answers))
    assert judged.loss == pytest.approx(judged.metrics["rmse"] ** 2)
    assert judged.per_class == {}


def test_numbers_that_are_all_alike_explain_nothing() -> None:
    assert np.isnan(score_outputs(np.ones((3, 1)), np.ones((3, 1)), ()).metrics["r2"])


@pytest.mark.parametrize(
    ("metric", "value", "text"), [("accuracy", 0.98765, "98.77%"), ("r2", 0.48123, "0.4812"), ("rmse", 53.21, "53.21")]
)
def test_metrics_for_people(metric: str, value: float, text: str) -> None:
    assert format_metric(metric, value) == text
