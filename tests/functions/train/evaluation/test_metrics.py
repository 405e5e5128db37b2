"""The metrics in closed form, and against scikit-learn's."""

import weakref

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import nn

from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.data.statistics import Moments
from functions.train.evaluation import totals as module
from functions.train.evaluation.metrics import score_language_model, score_outputs
from functions.train.evaluation.quantization_report import AgreementTotals
from functions.train.evaluation.totals import ClassificationTotals, RegressionTotals, build_totals
from functions.train.training.prediction import evaluate_network, predict_outputs
from pilotlight.contracts.metric import CLASS_METRICS, METRICS, NUMBER_METRICS, format_value


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
    judged = score_outputs(np.ones((3, 1)), np.ones((3, 1)), ())
    assert "r2" not in judged.metrics
    assert judged.main_metric == ("rmse", 0)
    for small, agreement in ((np.ones((3, 1)), 1), (np.zeros((3, 1)), 0)):
        totals = AgreementTotals()
        totals.add(np.ones((3, 1)), small)
        assert totals.compute() == agreement


@pytest.mark.parametrize(
    ("metric", "value", "text"), [("accuracy", 0.98765, "98.77%"), ("r2", 0.48123, "0.4812"), ("rmse", 53.21, "53.21")]
)
def test_metrics_for_people(metric: str, value: float, text: str) -> None:
    assert format_value(metric, value) == text


def drawn(classes: int, examples: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """Logits, labels and the probabilities of scikit-learn's kind."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, examples - classes)])
    logits = (2 * random.normal(size=(examples, classes))).astype(np.float32)
    logits[np.arange(examples), labels] += 2
    shares = np.exp(logits.astype(np.float64))
    return logits, labels, shares / shares.sum(axis=1, keepdims=True)


def named(classes: int) -> tuple[str, ...]:
    return tuple(f"c{number}" for number in range(classes))


@pytest.mark.parametrize(("classes", "examples"), [(2, 90), (2, 3000), (4, 400), (12, 500), (120, 900)])
def test_metrics_of_classes_are_scikit_learns_whatever_the_batches(classes: int, examples: int) -> None:
    logits, labels, shares = drawn(classes, examples)
    totals = ClassificationTotals(named(classes), tops=(3, 5, 10))
    for start in range(0, examples, 37):
        rows = slice(start, start + 37)
        totals.add(torch.from_numpy(logits[rows]), torch.from_numpy(labels[rows]))
    found, answers = totals.score(), logits.argmax(axis=1)
    expected = {
        "accuracy": metrics.accuracy_score(labels, answers),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, answers),
        "f1": metrics.f1_score(labels, answers, average="binary" if classes == 2 else "macro"),
        "auc": metrics.roc_auc_score(labels, shares[:, 1] if classes == 2 else shares, multi_class="ovr"),
        "log_loss": metrics.log_loss(labels, shares),
        **{f"top_{k}": metrics.top_k_accuracy_score(labels, logits, k=k) for k in (3, 5, 10) if k < classes},
    }
    assert found.metrics == pytest.approx(expected, rel=1e-12)
    assert found.loss == found.metrics["log_loss"]


def test_many_scores_are_counted_in_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels, shares = drawn(7, 6000)
    monkeypatch.setattr(module, "MAX_EXACT_SCORES", 5000)
    found = score_outputs(logits, labels, named(7)).metrics["auc"]
    assert found == pytest.approx(metrics.roc_auc_score(labels, shares, multi_class="ovr"), abs=2e-5)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_model_that_tells_no_class_from_another_is_not_right_among_the_top(value: float) -> None:
    logits, labels = np.full((20, 10), value, np.float32), np.arange(20) % 10
    found = score_outputs(logits, labels, named(10)).metrics
    assert found["top_5"] == pytest.approx(0 if np.isnan(value) else 0.5)


def test_of_equal_scores_the_first_class_is_the_answer_and_the_first_among_the_top() -> None:
    logits = np.array([[1, 3, 3, 3, 0, 2]] * 6, np.float32)
    totals = ClassificationTotals(named(6), tops=(1, 3, 5))
    totals.add(torch.from_numpy(logits), torch.arange(6))
    found = totals.score().metrics
    assert (found["accuracy"], found["top_1"], found["top_3"], found["top_5"]) == (1 / 6, 1 / 6, 3 / 6, 5 / 6)


@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4])
def test_sure_answers_keep_their_order(shift: float) -> None:
    """Probabilities would all be 1 or 0 in float32; their odds differ."""
    logits = np.array([[60 - n, 0.0] for n in range(30)] + [[0.0, 60 - n] for n in range(30)]) + shift
    labels = np.array([0] * 30 + [1] * 30)
    assert score_outputs(logits, labels, ("a", "b")).metrics["auc"] == 1
    assert score_outputs(logits, 1 - labels, ("a", "b")).metrics["auc"] == 0
    assert score_outputs(np.zeros((60, 2)), labels, ("a", "b")).metrics["auc"] == 0.5


def test_curve_needs_both_classes() -> None:
    assert "auc" not in score_outputs(np.eye(2), np.array([0, 0]), ("a", "b")).metrics
    of_three = score_outputs(np.eye(3)[[0, 1]], np.array([0, 1]), named(3)).metrics  # none of the third
    assert of_three["auc"] == 1


def test_class_that_neither_occurs_nor_is_predicted_has_no_f1() -> None:
    logits, labels = np.eye(4)[[0, 1, 1, 2]], np.array([0, 1, 2, 2])
    expected = metrics.f1_score(labels, logits.argmax(axis=1), average="macro")
    assert score_outputs(logits, labels, named(4)).metrics["f1"] == pytest.approx(expected)


def test_errors_are_scikit_learns_whatever_the_batches_and_in_the_targets_unit() -> None:
    random = np.random.default_rng(5)
    truth = random.normal(1e6, 3, (500, 1))  # whose squares would cancel in a sum
    answers = truth + random.normal(0, 1, (500, 1))
    moments = Moments(np.array([1e6]), np.array([3.0]))
    plain, scaled = RegressionTotals(origin=1e6), RegressionTotals(moments)
    for start in range(0, 500, 61):
        rows = slice(start, start + 61)
        plain.add(torch.from_numpy(answers[rows]), torch.from_numpy(truth[rows]))
        scaled.add(*(torch.from_numpy((each[rows] - 1e6) / 3) for each in (answers, truth)))
    expected = {
        "r2": metrics.r2_score(truth, answers),
        "mae": metrics.mean_absolute_error(truth, answers),
        "rmse": metrics.root_mean_squared_error(truth, answers),
        "mape": metrics.mean_absolute_percentage_error(truth, answers),
    }
    assert plain.score().metrics == pytest.approx(expected, rel=1e-9)
    assert scaled.score().metrics == pytest.approx(expected, rel=1e-9)
    assert scaled.score().loss == pytest.approx(plain.score().loss / 9)


@pytest.mark.parametrize("classes", [300, 5000])  # in float64, and above 4,096 in float32
def test_loss_of_tokens_is_torchs(classes: int) -> None:
    random = np.random.default_rng(1)
    logits = (3 * random.normal(size=(6, 40, classes))).astype(np.float32)
    targets = random.integers(0, classes, (6, 40))
    found = score_language_model(logits, targets, np.full(classes, 2))
    exact = torch.from_numpy(logits).double().flatten(0, 1)
    expected = float(torch.nn.functional.cross_entropy(exact, torch.from_numpy(targets).flatten()))
    assert found.loss == pytest.approx(expected, rel=1e-7)
    assert found.metrics["accuracy"] == float((logits.argmax(axis=2) == targets).mean())
    assert found.metrics["bits_per_byte"] == pytest.approx(expected / np.log(2) / 2)


def test_evaluation_keeps_one_batch_of_outputs() -> None:
    """What is alive at the end of a batch does not grow with their number."""
    alive: list[int] = []
    batches = weakref.WeakSet[torch.Tensor]()

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 50)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            alive.append(len(batches))
            outputs: torch.Tensor = self.layer(inputs)
            batches.add(outputs)
            return outputs

    random = np.random.default_rng(0)
    data = Dataset(random.normal(size=(9000, 3)).astype(np.float32), random.integers(0, 50, 9000), named(50))
    model = Watched()
    found = evaluate_network(model, data)
    assert len(alive) == 9
    assert max(alive) == 0  # the former batch is gone before the next is computed
    expected = score_outputs(predict_outputs(model, data.inputs), data.targets, data.classes)
    assert found.metrics == pytest.approx(expected.metrics, rel=1e-12)
    assert found.per_class == expected.per_class


@pytest.mark.parametrize("name", [*METRICS])
def test_every_metric_says_which_way_is_better_and_what_may_be_lost(name: str) -> None:
    kind = METRICS[name]
    better, worse = (0.9, 0.8) if kind.higher_is_better else (0.8, 0.9)
    assert kind.compute_degradation(better, worse) > kind.default_budget
    assert kind.compute_degradation(worse, better) < 0
    assert kind.is_better(better, worse)
    assert not kind.is_better(worse, better)
    assert not kind.is_better(float("nan"), worse)
    assert not kind.is_better(better, worse, min_delta=0.2)
    assert kind.format_difference(1, name).endswith(f" of {name}")


def test_error_in_the_targets_unit_is_judged_by_its_ratio() -> None:
    assert METRICS["mae"].compute_degradation(2000, 2010) == 0.5
    assert METRICS["rmse"].compute_degradation(0.002, 0.00201) == 0.5
    assert METRICS["mae"].compute_degradation(0, 0) == 0


@pytest.mark.parametrize("names", [None, (), ("accuracy",)])
@pytest.mark.parametrize("metric", [*CLASS_METRICS, *NUMBER_METRICS])
def test_the_metric_of_the_data_is_always_measured(metric: str, names: tuple[str, ...] | None) -> None:
    logits, labels, _ = drawn(12, 40)
    data = Dataset(logits, labels, tuple("abcdefghijkl"), metric=metric)
    if metric in NUMBER_METRICS:
        data = Dataset(logits, logits[:, :1], (), metric=metric)
    found = build_totals(data, names)
    found.add(torch.from_numpy(logits if data.classes else logits[:, 1:2]), torch.from_numpy(data.targets))
    assert metric in found.score().metrics
