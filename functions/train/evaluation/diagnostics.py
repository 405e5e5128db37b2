"""The results of the served variant on the test set in numbers: which classes it confuses, how calibrated it is.

Everything here is in `report.json`; `plots` draws it.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from msgspec import Struct

from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.data.statistics import RunningMoments

CALIBRATION_BINS = 15  # of confidence, equally wide: Guo et al., On Calibration of Modern Neural Networks, 2017
MAX_MATRIX_CLASSES = 100  # classes, up to which report.json has every cell
MAX_CONFUSIONS = 20  # confusions that are always listed
MIN_WAITING_PAIRS = 1 << 16  # predictions that are counted together
MAX_RESIDUALS = 1 << 20  # kept for their quantiles


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
    totals = DiagnosisTotals(test)
    totals.add(answers, test.targets)
    return totals.diagnose()


class DiagnosisTotals:
    """The diagnosis of outputs that come batch by batch; it keeps none of them, but up to a million residuals."""

    def __init__(self, test: Dataset) -> None:
        self._test = test
        self._totals: ClassificationDiagnosisTotals | RegressionDiagnosisTotals | None = None

    def add(self, answers: Array, targets: Array) -> None:
        """Add a batch of outputs with their targets."""
        if self._totals is None:
            self._totals = create_diagnosis_totals(answers.shape[1:], targets.shape[1:], self._test.classes)
        if self._totals:
            self._totals.add(answers, targets)

    def diagnose(self) -> Diagnosis:
        """Diagnose what was added; empty where that is neither one class nor one number for each example."""
        if isinstance(self._totals, ClassificationDiagnosisTotals):
            return Diagnosis(classification=self._totals.diagnose())
        if isinstance(self._totals, RegressionDiagnosisTotals):
            return Diagnosis(regression=self._totals.diagnose())
        return Diagnosis()


def create_diagnosis_totals(
    answer_shape: tuple[int, ...], target_shape: tuple[int, ...], classes: Sequence[str]
) -> "ClassificationDiagnosisTotals | RegressionDiagnosisTotals | None":
    """Create the totals for answers and targets of one example with these shapes."""
    if classes and answer_shape == (len(classes),) and target_shape == ():
        return ClassificationDiagnosisTotals(classes)
    if not classes and answer_shape == target_shape == (1,):
        return RegressionDiagnosisTotals()
    return None


def diagnose_classification(logits: Array, labels: Array, classes: Sequence[str]) -> ClassificationDiagnosis:
    """Diagnose predictions that are classes."""
    totals = ClassificationDiagnosisTotals(classes)
    totals.add(logits, labels)
    return totals.diagnose()


class ClassificationDiagnosisTotals:
    """The confusions and the calibration of predictions that are classes."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes, self._pairs, self._calibration = classes, PairCounts(), CalibrationTotals()

    def add(self, logits: Array, labels: Array) -> None:
        """Add a batch."""
        self._pairs.add(labels * len(self._classes) + logits.argmax(axis=1))
        self._calibration.add(logits, labels)

    def diagnose(self) -> ClassificationDiagnosis:
        """Diagnose what was added."""
        names, number = self._classes, len(self._classes)
        pairs, counts = self._pairs.sum_up()
        actual, answered = np.divmod(pairs, number)
        supports, predicted = (np.bincount(each, counts, number).astype(np.int64) for each in (actual, answered))
        right = actual == answered
        hits = np.bincount(actual[right], counts[right], number).astype(np.int64)
        described = tuple(
            measure_class_quality(name, *map(int, numbers))
            for name, *numbers in zip(names, hits, supports, predicted, strict=True)
        )
        return ClassificationDiagnosis(
            accuracy=compute_wilson_interval(int(hits.sum()), int(supports.sum())),
            classes=described,
            collapsed=tuple(one.name for one in described if one.support and not one.predicted),
            confusion=build_confusion_matrix(pairs, counts, number) if number <= MAX_MATRIX_CLASSES else (),
            worst=find_worst_confusions(actual[~right], answered[~right], counts[~right], supports, names),
            calibration=self._calibration.measure(),
        )


class PairCounts:
    """How often each pair of an actual class and a prediction occurs, as one number each: only pairs that occur."""

    def __init__(self) -> None:
        self._pairs = self._counts = np.zeros(0, np.int64)
        self._waiting: list[Array] = []
        self._waiting_count = 0

    def add(self, pairs: Array) -> None:
        """Add pairs, and sum up when as many wait as are known already, so that each is sorted a few times."""
        self._waiting.append(pairs)
        self._waiting_count += len(pairs)
        if self._waiting_count > max(MIN_WAITING_PAIRS, len(self._pairs)):
            self.sum_up()

    def sum_up(self) -> tuple[Array, Array]:
        """Return the different pairs, ascending, and the count of each."""
        every = np.concatenate([self._pairs, *self._waiting])
        weights = np.concatenate([self._counts, np.ones(self._waiting_count, np.int64)])
        self._pairs, places = np.unique(every, return_inverse=True)
        self._counts = np.bincount(places, weights, len(self._pairs)).astype(np.int64)
        self._waiting, self._waiting_count = [], 0
        return self._pairs, self._counts


def build_confusion_matrix(pairs: Array, counts: Array, classes: int) -> tuple[tuple[int, ...], ...]:
    """Build the matrix of counts (classes, classes): a row per actual class, a column per prediction."""
    matrix = np.zeros(classes**2, np.int64)
    matrix[pairs] = counts
    return tuple(map(tuple, matrix.reshape(classes, classes).tolist()))


def measure_class_quality(name: str, hits: int, support: int, predicted: int) -> ClassQuality:
    """Measure one class from its counts."""
    return ClassQuality(
        name=name,
        support=support,
        predicted=predicted,
        precision=hits / predicted if predicted else None,
        recall=hits / support if support else None,
        f1=2 * hits / (support + predicted) if support + predicted else None,
    )


def find_worst_confusions(
    actual: Array, answered: Array, counts: Array, supports: Array, classes: Sequence[str]
) -> tuple[Confusion, ...]:
    """Find the most frequent confusions, the most frequent first; of equal ones, the larger share first."""
    shares = counts / np.maximum(1, supports[actual])
    order = np.lexsort((-shares, -counts))[:MAX_CONFUSIONS]
    return tuple(
        Confusion(classes[actual[place]], classes[answered[place]], int(counts[place]), float(shares[place]))
        for place in order
    )


def measure_calibration(logits: Array, labels: Array) -> ConfidenceCalibration:
    """Measure how reliable the most probable class's probability is, in 15 bins of equal width."""
    totals = CalibrationTotals()
    totals.add(logits, labels)
    return totals.measure()


class CalibrationTotals:
    """Counts, confidences and right answers in 15 bins of confidence."""

    def __init__(self) -> None:
        self._sums = np.zeros((3, CALIBRATION_BINS))

    def add(self, logits: Array, labels: Array) -> None:
        """Add a batch."""
        confidences, right = compute_softmax(logits).max(axis=1), logits.argmax(axis=1) == labels
        number = np.clip(np.ceil(confidences * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
        for sums, weights in zip(self._sums, (None, confidences, right), strict=True):
            sums += np.bincount(number, weights, CALIBRATION_BINS)

    def measure(self) -> ConfidenceCalibration:
        """Measure the calibration of what was added."""
        edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
        counts, total = self._sums[0], self._sums[0].sum()
        confidences, accuracies = self._sums[1:] / np.maximum(counts, 1)
        bins = tuple(
            ConfidenceBin(float(low), float(high), int(count), float(confidence), float(accuracy))
            for low, high, count, confidence, accuracy in zip(
                edges[:-1], edges[1:], counts, confidences, accuracies, strict=True
            )
        )
        ece = float((counts * np.abs(confidences - accuracies)).sum() / total)
        confidence, accuracy = (float(sums.sum() / total) for sums in self._sums[1:])
        return ConfidenceCalibration(ece, confidence, accuracy, bins)


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
    totals = RegressionDiagnosisTotals()
    totals.add(answers, targets)
    return totals.diagnose()


class RegressionDiagnosisTotals:
    """The moments of residuals and truth, and the residuals themselves, thinned evenly where they are too many."""

    def __init__(self) -> None:
        self._moments = RunningMoments()  # of residuals and targets
        self._largest = 0.0
        self._residuals: list[Array] = []
        self._step, self._seen, self._kept = 1, 0, 0  # every how manieth residual is kept

    def add(self, answers: Array, targets: Array) -> None:
        """Add a batch."""
        residuals = answers.astype(np.float64) - targets
        self._moments.add_part(np.concatenate([residuals, targets.astype(np.float64)], axis=1))
        self._largest = max(self._largest, float(np.abs(residuals).max()))
        chosen = residuals[-self._seen % self._step :: self._step, 0]
        self._residuals.append(chosen)
        self._seen, self._kept = self._seen + len(residuals), self._kept + len(chosen)
        while self._kept > MAX_RESIDUALS:
            self._residuals = [np.concatenate(self._residuals)[::2]]
            self._step, self._kept = 2 * self._step, len(self._residuals[0])

    def diagnose(self) -> RegressionDiagnosis:
        """Diagnose what was added; the quantiles are of at most a million residuals."""
        kept, mean = np.concatenate(self._residuals), self._moments.mean
        deviations = np.sqrt(self._moments.squared_deviations / self._seen)
        points = {f"{share:.0%}": float(np.quantile(kept, share)) for share in (0.05, 0.25, 0.5, 0.75, 0.95)}
        return RegressionDiagnosis(
            bias=float(mean[0]),
            deviation=float(deviations[0]),
            quantiles=points,
            largest=self._largest,
            spread=float(deviations[1]),
        )
