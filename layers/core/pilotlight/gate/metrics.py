"""Metrics of a model's answers to a test set, as functions of how often each example is drawn.

With every example drawn once they are the usual metrics; with drawn counts they are bootstrap replicates (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Plain numpy, because torch and scikit-learn are not
installed where the gate runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pilotlight.contracts import metric
from pilotlight.errors import UnsupportedError
from pilotlight.runtime.datatypes import Array

RESAMPLES = 2000
MAX_COUNTS = 1 << 22  # counts of drawn examples held in memory at once, 32 MB


@dataclass(frozen=True, eq=False)
class EvaluationOutputs:
    """A model's answers to a test set, and the targets; the first dimension is the example."""

    outputs: Array  # logits (N, C) or (N, T, C), or numbers (N, 1)
    targets: Array  # int (N,) or (N, T), or float (N, 1)

    @property
    def correct_share(self) -> Array:
        """The share of right answers in each example, (N,)."""
        hits = self.outputs.argmax(axis=-1) == self.targets
        return np.asarray(hits.reshape(len(hits), -1).mean(axis=1))


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


def r2_score(answers: EvaluationOutputs, counts: Array) -> Array:
    """Compute the share of the targets' variance that the model explains."""
    targets = answers.targets.reshape(len(answers.targets)).astype(np.float64)
    errors = np.square(answers.outputs.reshape(len(targets)).astype(np.float64) - targets)
    total = counts.sum(axis=1)
    mean = counts @ targets / total
    variance = counts @ np.square(targets) / total - np.square(mean)
    return np.asarray(1 - (counts @ errors / total) / variance)


def cross_entropy_loss(answers: EvaluationOutputs, counts: Array) -> Array:
    """Compute the mean of log(sum(exp(z))) - z[target], in nats."""
    logits = answers.outputs.astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(shifted, answers.targets[..., None], axis=-1)[..., 0]
    each = np.log(np.exp(shifted).sum(axis=-1)) - chosen
    return np.asarray(counts @ each.reshape(len(each), -1).mean(axis=1) / counts.sum(axis=1))


METRICS: Mapping[str, WeightedMetric] = {
    "accuracy": WeightedMetric(accuracy_score, metric.METRICS["accuracy"]),
    "balanced_accuracy": WeightedMetric(balanced_accuracy_score, metric.METRICS["balanced_accuracy"]),
    "r2": WeightedMetric(r2_score, metric.METRICS["r2"]),
    "loss": WeightedMetric(cross_entropy_loss, metric.METRICS["loss"]),
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
    labels, right = answers.targets.reshape(-1), (answers.outputs.argmax(axis=-1) == answers.targets).reshape(-1)
    return {
        int(label): (float(right[labels == label].mean()), int((labels == label).sum())) for label in np.unique(labels)
    }
