"""Metrics of a model's answers to a test set, as functions of how often each example is drawn.

With every example drawn once they are the usual metrics; with drawn counts they are bootstrap replicates (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Plain numpy, because torch and scikit-learn are not
installed where the gate runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from pilotlight.contracts import metric
from pilotlight.errors import UnsupportedError
from pilotlight.gate.answers import EvaluationOutputs, compute_odds_step
from pilotlight.runtime.datatypes import Array

RESAMPLES = 2000
MAX_COUNTS = 1 << 22  # counts of drawn examples held in memory at once, 32 MB


@dataclass(frozen=True)
class WeightedMetric:
    """A metric over examples drawn `counts` times, (R, N) to (R,), and the definition with its unit."""

    compute: Callable[[EvaluationOutputs, Array], Array]
    definition: metric.MetricDefinition


def accuracy_score(answers: EvaluationOutputs, counts: Array) -> Array:
    """Compute the share of right answers."""
    return np.asarray(counts @ answers.correct_share / counts.sum(axis=1))


def balanced_accuracy_score(answers: EvaluationOutputs, counts: Array) -> Array:
    """Compute the mean recall over the classes; a class that is not drawn is left out."""
    recalls = []
    for label in np.unique(answers.targets):
        drawn = counts * (answers.targets == label)
        total = drawn.sum(axis=1)
        recalls.append(
            np.divide(drawn @ answers.correct_share, total, out=np.full(len(counts), np.nan), where=total > 0)
        )
    return np.asarray(np.nanmean(recalls, axis=0))


def f1_score(answers: EvaluationOutputs, counts: Array) -> Array:
    """Compute F1: of two classes that of the second, of more the mean over the classes that occur or are predicted."""
    targets, predicted = answers.targets.reshape(-1), answers.statistics.predicted.reshape(-1)
    per_token = counts if len(targets) == len(answers.targets) else repeat_counts(counts, answers.targets.shape)
    total_classes = int(answers.statistics.shape[-1])
    labels = [1] if total_classes == 2 else np.union1d(targets, predicted)
    each = []
    for label in labels:
        right, answered = targets == label, predicted == label
        total = per_token @ right.astype(np.float64) + per_token @ answered.astype(np.float64)
        absent = np.full(len(counts), 0.0 if total_classes == 2 else np.nan)
        each.append(
            np.divide(2 * (per_token @ (right & answered).astype(np.float64)), total, out=absent, where=total > 0)
        )
    return np.asarray(np.nanmean(each, axis=0))


def repeat_counts(counts: Array, shape: tuple[int, ...]) -> Array:
    """Repeat the count of each example for its tokens."""
    return np.repeat(counts, int(np.prod(shape[1:])), axis=1)


def auc_score(answers: EvaluationOutputs, counts: Array) -> Array:
    """Compute the area under the ROC curve: of more than two classes the mean over them, each against the rest.

    Of many examples with many classes, an evenly spaced sample is used: see `answers.MAX_ODDS`.
    """
    odds = answers.statistics.odds
    rows = np.arange(0, len(answers.targets), compute_odds_step(len(answers.targets), odds.shape[1]))
    targets, drawn, size = answers.targets[rows], counts[:, rows], odds.shape[1]
    areas = [weighted_area(odds[:, column], targets == column, drawn) for column in ([1] if size == 2 else range(size))]
    found = np.array(areas)
    return np.asarray(np.nanmean(found[~np.isnan(found).all(axis=1)], axis=0)) if (found == found).any() else found[0]


def weighted_area(scores: Array, own: Array, counts: Array) -> Array:
    """Compute the area (R,) for examples drawn `counts` (R, n) times; NaN without examples or without others."""
    levels, places = np.unique(scores, return_inverse=True)
    order = np.argsort(places, kind="stable")
    starts = np.searchsorted(places[order], np.arange(len(levels)))
    others, of_class = (np.add.reduceat((counts * chosen)[:, order], starts, axis=1) for chosen in (~own, own))
    below = np.cumsum(others, axis=1) - others / 2  # a tie counts half
    pairs = others.sum(axis=1) * of_class.sum(axis=1)
    ordered = np.asarray((of_class * below).sum(axis=1))
    areas: Array = np.divide(ordered, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)
    return areas


def top_score(place: int, answers: EvaluationOutputs, counts: Array) -> Array:
    """Compute the share of targets among the most probable classes."""
    return np.asarray(counts @ answers.statistics.top_shares[:, place] / counts.sum(axis=1))


def cross_entropy_loss(answers: EvaluationOutputs, counts: Array) -> Array:
    """Compute the mean of log(sum(exp(z))) - z[target], in nats."""
    return np.asarray(counts @ answers.statistics.losses / counts.sum(axis=1))


def r2_score(answers: EvaluationOutputs, counts: Array) -> Array:
    """Compute the share of the targets' variance that the model explains."""
    targets = flatten_targets(answers)
    errors = np.square(answers.statistics.numbers - targets)
    total = counts.sum(axis=1)
    centred = targets - targets.mean()  # so that the squares do not cancel
    mean = counts @ centred / total
    variance = counts @ np.square(centred) / total - np.square(mean)
    return np.asarray(1 - (counts @ errors / total) / variance)


def mean_absolute_error(answers: EvaluationOutputs, counts: Array) -> Array:
    """Compute the mean distance from the right number."""
    return average_over_draws(np.abs(answers.statistics.numbers - flatten_targets(answers)), counts)


def root_mean_squared_error(answers: EvaluationOutputs, counts: Array) -> Array:
    """Compute the root of the mean squared distance from the right number."""
    return np.sqrt(average_over_draws(np.square(answers.statistics.numbers - flatten_targets(answers)), counts))


def mean_absolute_percentage_error(answers: EvaluationOutputs, counts: Array) -> Array:
    """Compute the mean distance from the right number, as a share of that number."""
    targets = flatten_targets(answers)
    shares = np.abs(answers.statistics.numbers - targets) / np.maximum(np.abs(targets), np.finfo(np.float64).eps)
    return average_over_draws(shares, counts)


def flatten_targets(answers: EvaluationOutputs) -> Array:
    """Return targets that are numbers as float64 (N,)."""
    return answers.targets.reshape(len(answers.targets)).astype(np.float64)


def average_over_draws(values: Array, counts: Array) -> Array:
    """Average a value of each example over the drawn ones, (R,)."""
    return np.asarray(counts @ values / counts.sum(axis=1))


SCORES: Mapping[str, Callable[[EvaluationOutputs, Array], Array]] = {
    "accuracy": accuracy_score,
    "balanced_accuracy": balanced_accuracy_score,
    "f1": f1_score,
    "auc": auc_score,
    **{f"top_{count}": partial(top_score, place) for place, count in enumerate(metric.TOP_COUNTS)},
    "log_loss": cross_entropy_loss,
    "r2": r2_score,
    "mae": mean_absolute_error,
    "rmse": root_mean_squared_error,
    "mape": mean_absolute_percentage_error,
    "loss": cross_entropy_loss,
}
METRICS: Mapping[str, WeightedMetric] = {
    name: WeightedMetric(compute, metric.METRICS[name]) for name, compute in SCORES.items()
}


def find_metric(name: str) -> WeightedMetric:
    """Return the metric of this name; `UnsupportedError` lists the known ones."""
    if name not in METRICS:
        raise UnsupportedError(f"The gate knows no metric {name!r}; it knows {', '.join(METRICS)}.")
    return METRICS[name]


def compute_metric(metric: WeightedMetric, answers: EvaluationOutputs) -> float:
    """Compute the metric over the test set, with each example drawn once."""
    return float(metric.compute(answers, np.ones((1, len(answers.targets))))[0])


def compute_gain(metric: WeightedMetric, ours: EvaluationOutputs, theirs: EvaluationOutputs) -> float:
    """Compute by how much ours is better, in the metric's unit; negative if it is worse."""
    return 0 - metric.definition.compute_degradation(compute_metric(metric, theirs), compute_metric(metric, ours))


def compute_probability_worse(
    metric: WeightedMetric, ours: EvaluationOutputs, theirs: EvaluationOutputs, seed: int = 0
) -> float:
    """Compute the share of paired resamples in which ours is worse: the confidence that it is worse, 0 to 1."""
    random, examples = np.random.default_rng(seed), len(ours.targets)
    rows = max(1, MAX_COUNTS // examples)
    worse = 0
    for start in range(0, RESAMPLES, rows):
        drawn = random.multinomial(examples, np.full(examples, 1 / examples), size=min(rows, RESAMPLES - start))
        counts = drawn.astype(np.float64)
        difference = metric.compute(ours, counts) - metric.compute(theirs, counts)
        worse += int(((difference if metric.definition.higher_is_better else -difference) < 0).sum())
    return worse / RESAMPLES


def compute_recalls(answers: EvaluationOutputs) -> dict[int, tuple[float, int]]:
    """Compute each class's recall and its number of examples, for the classes that occur."""
    labels, right = answers.targets.reshape(-1), (answers.statistics.predicted == answers.targets).reshape(-1)
    return {
        int(label): (float(right[labels == label].mean()), int((labels == label).sum())) for label in np.unique(labels)
    }
