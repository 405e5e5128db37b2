"""The results of the served variant on the test set in numbers: which classes it confuses, how calibrated it is.

Everything here is in `report.json`; `plots` draws it.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from msgspec import Struct

from functions.train.data import Array
from functions.train.data.dataset import Dataset

CALIBRATION_BINS = 15  # of confidence, equally wide: Guo et al., On Calibration of Modern Neural Networks, 2017
MAX_MATRIX_CLASSES = 100  # classes, up to which report.json has every cell
MAX_CONFUSIONS = 20  # confusions that are always listed


class ConfidenceInterval(Struct, frozen=True):
    """The 95 % confidence interval of a share."""

    low: float
    high: float


class ClassQuality(Struct, frozen=True):
    """The quality of one class. Precision, recall and F1 are null where they would divide by zero."""

    name: str
    support: int  # test examples of it
    predicted: int  # examples that were taken for it
    precision: float | None
    recall: float | None
    f1: float | None


class Confusion(Struct, frozen=True):
    """Examples of one class that were predicted as another."""

    actual: str
    taken_for: str
    count: int
    share: float  # of the actual class's examples


class ConfidenceBin(Struct, frozen=True):
    """The predictions whose confidence is between two bounds: how confident they were, and how often right."""

    low: float
    high: float
    count: int
    confidence: float  # mean; 0 where there are none
    accuracy: float


class ConfidenceCalibration(Struct, frozen=True):
    """How far the softmax of the logits is a probability."""

    ece: float  # expected calibration error: the mean |confidence - accuracy| over the bins, by their counts
    confidence: float  # mean
    accuracy: float
    bins: tuple[ConfidenceBin, ...]


class ClassificationDiagnosis(Struct, frozen=True):
    """The diagnosis of predictions that are classes."""

    accuracy: ConfidenceInterval  # Wilson's
    classes: tuple[ClassQuality, ...]
    collapsed: tuple[str, ...]  # classes in the test set that are never predicted
    confusion: tuple[tuple[int, ...], ...]  # counts; a row per actual class, a column per answer. Empty above 100
    worst: tuple[Confusion, ...]  # the largest off the diagonal
    calibration: ConfidenceCalibration


class RegressionDiagnosis(Struct, frozen=True):
    """The diagnosis of predicted numbers, in their own unit. A residual is the prediction minus the truth."""

    bias: float  # mean residual
    deviation: float  # of the residuals
    quantiles: dict[str, float]  # of the residuals
    largest: float  # |residual|
    spread: float  # standard deviation of the truth: the error of always answering the mean


class Diagnosis(Struct, frozen=True):
    """The diagnosis of one variant on the test set; empty where it predicts neither one class nor one number."""

    classification: ClassificationDiagnosis | None = None
    regression: RegressionDiagnosis | None = None


def diagnose_answers(answers: Array, test: Dataset) -> Diagnosis:
    """Diagnose (N, classes) logits against (N,) labels, or (N, 1) numbers against the (N, 1) right ones."""
    if test.classes and answers.shape == (len(test), len(test.classes)):
        return Diagnosis(classification=diagnose_classification(answers, test.targets, test.classes))
    if not test.classes and answers.shape == test.targets.shape == (len(test), 1):
        return Diagnosis(regression=diagnose_regression(answers, test.targets))
    return Diagnosis()


def diagnose_classification(logits: Array, labels: Array, classes: Sequence[str]) -> ClassificationDiagnosis:
    """Diagnose predictions that are classes."""
    matrix = build_confusion_matrix(logits.argmax(axis=1), labels, len(classes))
    described = tuple(measure_class_quality(matrix, index, name) for index, name in enumerate(classes))
    return ClassificationDiagnosis(
        accuracy=compute_wilson_interval(int(matrix.trace()), len(labels)),
        classes=described,
        collapsed=tuple(one.name for one in described if one.support and not one.predicted),
        confusion=tuple(map(tuple, matrix.tolist())) if len(classes) <= MAX_MATRIX_CLASSES else (),
        worst=find_worst_confusions(matrix, classes),
        calibration=measure_calibration(logits, labels),
    )


def build_confusion_matrix(answers: Array, labels: Array, classes: int) -> Array:
    """Build the matrix of counts (classes, classes): a row per actual class, a column per prediction."""
    return np.bincount(labels * classes + answers, minlength=classes**2).reshape(classes, classes)


def measure_class_quality(matrix: Array, index: int, name: str) -> ClassQuality:
    """Measure one class from its row and column."""
    hits, support, predicted = int(matrix[index, index]), int(matrix[index].sum()), int(matrix[:, index].sum())
    return ClassQuality(
        name=name,
        support=support,
        predicted=predicted,
        precision=hits / predicted if predicted else None,
        recall=hits / support if support else None,
        f1=2 * hits / (support + predicted) if support + predicted else None,
    )


def find_worst_confusions(matrix: Array, classes: Sequence[str]) -> tuple[Confusion, ...]:
    """Find the largest cells off the diagonal, the largest first; of equal ones, the larger share first."""
    wrong = matrix - np.diag(matrix.diagonal())
    shares = wrong / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    order = np.lexsort((-shares.ravel(), -wrong.ravel()))[:MAX_CONFUSIONS]
    cells = [divmod(int(place), len(classes)) for place in order]
    return tuple(
        Confusion(classes[row], classes[column], int(wrong[row, column]), float(shares[row, column]))
        for row, column in cells
        if wrong[row, column]
    )


def measure_calibration(logits: Array, labels: Array) -> ConfidenceCalibration:
    """Measure how reliable the most probable class's probability is, in 15 bins of equal width."""
    shares = compute_softmax(logits)
    confidences, right = shares.max(axis=1), logits.argmax(axis=1) == labels
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    number = np.clip(np.ceil(confidences * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    bins = []
    for index in range(CALIBRATION_BINS):
        inside = number == index
        some = bool(inside.any())
        confidence, accuracy = (float(values[inside].mean()) if some else 0.0 for values in (confidences, right))
        bins.append(
            ConfidenceBin(float(edges[index]), float(edges[index + 1]), int(inside.sum()), confidence, accuracy)
        )
    ece = sum(one.count * abs(one.confidence - one.accuracy) for one in bins) / len(labels)
    return ConfidenceCalibration(ece, float(confidences.mean()), float(right.mean()), tuple(bins))


def compute_softmax(logits: Array) -> Array:
    """Compute probabilities from (N, classes) logits; in float64 and shifted by the maximum against overflow."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


def compute_wilson_interval(successes: int, trials: int) -> ConfidenceInterval:
    """Compute the 95 % interval of a share. E. B. Wilson, Probable Inference, JASA 22, 1927."""
    z = NormalDist().inv_cdf(0.975)
    share, scale = successes / trials, 1 + z**2 / trials
    middle = (share + z**2 / (2 * trials)) / scale
    half = z / scale * (share * (1 - share) / trials + z**2 / (4 * trials**2)) ** 0.5
    return ConfidenceInterval(max(0.0, middle - half), min(1.0, middle + half))


def diagnose_regression(answers: Array, targets: Array) -> RegressionDiagnosis:
    """Diagnose predictions that are numbers."""
    residuals = answers.astype(np.float64) - targets
    points = {f"{share:.0%}": float(np.quantile(residuals, share)) for share in (0.05, 0.25, 0.5, 0.75, 0.95)}
    return RegressionDiagnosis(
        bias=float(residuals.mean()),
        deviation=float(residuals.std()),
        quantiles=points,
        largest=float(np.abs(residuals).max()),
        spread=float(targets.astype(np.float64).std()),
    )
