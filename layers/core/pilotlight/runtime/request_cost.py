"""Predict the memory and the time of a run of a graph, from what was measured at publish and from the runs so far.

A version that was published without measurements is learned on the way. This module depends on numbers, not on arrays
or sessions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from pilotlight.contracts.manifest import CostPoint, Manifest
from pilotlight.runtime.session import MB_PER_VCPU

UNKNOWN_PEAK_FACTOR = 16.0  # bytes of memory for each byte of input, of a graph that was not measured
MIN_RATED_SECONDS = 0.001  # s; shorter runs measure the machine's mood
MAX_ROWS = 1 << 62  # as many as anybody likes
LEARNING_RATE = 0.3  # weight of the newest run in the ratio of seen to predicted seconds
MAX_STEP = 5.0  # times by which one run may change that ratio; the first run of a session is slow
MEMORY_MARGIN = 1.3  # times what was measured with 64 rows; memory in use by larger runs is less dense
LIGHT_BYTES, LIGHT_SECONDS = 16_000_000, 0.1  # of a run that is not weighed, since weighing takes 10 us
LARGEST_ANSWER_FACTOR = 16  # bytes of an answer in JSON for each byte of FP32: python's float, its place, and its text
MAX_EXPONENT = 2.0  # of the cost in the size of a row: attention's


def compute_slowdown(memory_mb: int) -> float:
    """Compute how many times as long one thread takes if the function has less than one vCPU."""
    return max(1.0, MB_PER_VCPU / memory_mb)


@dataclass(frozen=True)
class CostFormula:
    """`base + per_row * rows * (bytes of a row / row_bytes) ** exponent`, and no exponent for smaller rows."""

    base: float
    per_row: float
    row_bytes: float
    exponent: float

    @classmethod
    def fit(cls, points: Sequence[CostPoint], values: Sequence[float]) -> "CostFormula":
        """Fit to measured values: the slope of the largest run, the exponent of the largest rows."""
        usual_bytes = min(point.row_bytes for point in points)
        usual = [(point, value) for point, value in zip(points, values, strict=True) if point.row_bytes == usual_bytes]
        first, last = (pick(usual, key=lambda pair: pair[0].rows) for pick in (min, max))
        widest = max(zip(points, values, strict=True), key=lambda pair: pair[0].row_bytes)
        per_row = last[1] / last[0].rows
        return cls(
            base=first[1] if last is not first else 0.0,
            per_row=per_row,
            row_bytes=float(max(1, usual_bytes)),
            exponent=fit_exponent(per_row, widest[1] / widest[0].rows, widest[0].row_bytes / max(1, usual_bytes)),
        )

    def scale_row(self, row_bytes: float) -> float:
        """Compute what one row of `row_bytes` adds."""
        ratio: float = row_bytes / self.row_bytes
        return self.per_row if ratio <= 1 else self.per_row * ratio**self.exponent

    def evaluate(self, rows: int, row_bytes: float) -> float:
        """Compute the cost of a run."""
        return self.base + rows * self.scale_row(row_bytes)


def fit_exponent(usual: float, wide: float, ratio: float) -> float:
    """Fit the exponent by which a row's cost grows with its bytes, from two rows that differ `ratio` times."""
    if ratio <= 1 or usual <= 0 or wide <= usual:
        return 1.0
    return min(MAX_EXPONENT, max(1.0, log(wide / usual) / log(ratio)))


class VersionCost:
    """What runs of one version cost in this environment; calls of one version do not overlap often enough to lock."""

    def __init__(self, manifest: Manifest, slowdown: float = 1.0) -> None:
        """Create it from the manifest; `slowdown` is how much slower this environment probably is."""
        cost = manifest.request_cost
        self.is_measured = cost is not None
        self.is_divisible = cost is not None and cost.rows_independent and has_free_rows(manifest)
        # Without a measurement, all that is known is the size of the inputs.
        points = cost.points if cost is not None else (CostPoint(1, 1, 0.0, int(UNKNOWN_PEAK_FACTOR), 0),)
        self._memory = CostFormula.fit(points, [point.peak_bytes for point in points])
        self._time = CostFormula.fit(points, [point.ms / 1000 for point in points])
        self._outputs = CostFormula.fit(points, [point.output_bytes for point in points])
        self._time_ratio = slowdown  # of seen to predicted seconds
        self._memory_ratio = MEMORY_MARGIN  # grows when a run was not given the memory that was predicted
        self._unknown_seconds = 0.0  # s for each byte of input, of a version without measurements
        self._light_rows = self._count_light_rows()

    def is_light(self, rows: int, feed_bytes: int) -> bool:
        """Return whether a run is so small that weighing it would take longer than it is worth."""
        if not self.is_measured:
            return feed_bytes <= LIGHT_BYTES / UNKNOWN_PEAK_FACTOR
        return rows <= self._light_rows and feed_bytes <= rows * self._memory.row_bytes

    def _count_light_rows(self) -> int:
        """Count the rows of the usual size that are run without being weighed."""
        row_bytes = self._memory.row_bytes
        by_memory = self.count_rows_for_bytes(LIGHT_BYTES, row_bytes)
        by_answer = LIGHT_BYTES / LARGEST_ANSWER_FACTOR / max(1.0, self._outputs.scale_row(row_bytes))
        return int(min(by_memory, by_answer, self.count_rows_for_seconds(LIGHT_SECONDS, row_bytes)))

    def predict_bytes(self, rows: int, row_bytes: float) -> float:
        """Predict the memory of a run beyond its inputs, with its outputs."""
        return self._memory.evaluate(rows, row_bytes) * self._memory_ratio

    def predict_output_bytes(self, rows: int, row_bytes: float) -> float:
        """Predict the bytes of the outputs of a run; 0 if that was not measured."""
        return rows * self._outputs.scale_row(row_bytes)

    def predict_seconds(self, rows: int, row_bytes: float) -> float:
        """Predict the seconds of a run."""
        if not self.is_measured:
            return rows * row_bytes * self._unknown_seconds
        return self._time.evaluate(rows, row_bytes) * self._time_ratio

    def count_rows_for_bytes(self, available: float, row_bytes: float) -> int:
        """Count how many rows a run can have in this memory."""
        per_row = self._memory.scale_row(row_bytes) * self._memory_ratio
        return max(0, int((available - self._memory.base * self._memory_ratio) / max(per_row, 1.0)))

    def count_rows_for_seconds(self, seconds: float, row_bytes: float) -> int:
        """Count how many rows a run can have in this time; all, in effect, if nothing is known."""
        if seconds <= 0:
            return 0
        per_row = self.predict_seconds(1, row_bytes) - (self._time.base * self._time_ratio if self.is_measured else 0.0)
        return int(min(seconds / per_row, MAX_ROWS)) if per_row > 0 else MAX_ROWS

    def record_seconds(self, rows: int, row_bytes: float, seconds: float) -> None:
        """Learn from the time that a run took."""
        if not self.is_measured:
            per_byte = seconds / max(1.0, rows * row_bytes)
            self._unknown_seconds += LEARNING_RATE * (per_byte - self._unknown_seconds)
            return
        predicted = self._time.evaluate(rows, row_bytes)
        if predicted >= MIN_RATED_SECONDS:
            step = min(MAX_STEP, max(1 / MAX_STEP, seconds / predicted / self._time_ratio))
            self._time_ratio *= 1 + LEARNING_RATE * (step - 1)
            self._light_rows = self._count_light_rows()

    def record_exhaustion(self, rows: int, row_bytes: float, free_bytes: int) -> None:
        """Learn that a run did not fit into this memory, so that the next one like it is refused before it runs."""
        self._memory_ratio *= max(1.0, 1.1 * free_bytes / max(1.0, self.predict_bytes(rows, row_bytes)))
        self._light_rows = self._count_light_rows()


def has_free_rows(manifest: Manifest) -> bool:
    """Return whether all inputs and outputs have a free first dimension."""
    return bool(manifest.inputs) and all(
        spec.shape and isinstance(spec.shape[0], str) for spec in (*manifest.inputs, *manifest.outputs)
    )
