"""Measure what requests of a graph cost, in a process of its own: `python -m pilotlight.runtime.cost_measurement`.

The process opens the graph as a handler does and runs it with 1, 8 and 64 rows, with larger rows if their size is free,
and with rows together and one by one. It has its own process because only a fresh one shows the memory of a run, and
because a graph may kill the process that runs it. Publishing never fails because of it: then environments learn.
"""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
from msgspec import Struct

from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import CostPoint, RequestCost, TensorSpec
from pilotlight.errors import DeadlineError, InvalidInputError, PilotlightError
from pilotlight.runtime import malloc, process_memory
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.golden import GoldenDocument, to_arrays
from pilotlight.runtime.golden_recorder import generate_input
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.measurement_process import measure_in_new_process
from pilotlight.runtime.session import MB_PER_VCPU, Session, open_session

LOG = logging.getLogger("pilotlight.runtime")
ROW_COUNTS = (1, 8, 64)
ROWS_TOGETHER = 4  # rows that are run together and one by one
WIDENINGS = (16, 4)  # times by which a row of a free size is made larger, the first that the graph takes
MEASURE_SECONDS = 1.0  # s for all runs; those that would take longer are left out
MAX_RUNS = 5  # of one size, of which the median time counts
MAX_PEAK_BYTES = 1_000_000_000  # bytes; larger runs are not tried on the publisher's machine
SMALL_GRAPH_BYTES = 16_000_000  # bytes; such a graph is opened twice, since the first session brings onnxruntime's own
TIMEOUT_SECONDS = 20.0  # s for the process, after which it is ended
TOLERANCE = 1e-5  # share of the largest value by which rows together may differ from rows alone: kernels round apart
Feeds = Mapping[str, Array]


class CostMeasurementRequest(Struct, frozen=True):
    """Which graph to measure, and its golden requests, if it has some."""

    graph: str
    golden: GoldenDocument | None = None
    memory_mb: int = MB_PER_VCPU


def measure_request_cost(graph: Path, golden: GoldenDocument | None = None) -> RequestCost | None:
    """Measure a graph in a new process; None, with a line in the log, if that fails or takes too long."""
    request = CostMeasurementRequest(str(graph.absolute()), golden)
    what = f"What requests of {graph.name} cost"
    return measure_in_new_process("pilotlight.runtime.cost_measurement", request, RequestCost, TIMEOUT_SECONDS, what)


def measure_graph(request: CostMeasurementRequest) -> RequestCost:
    """Open the graph and measure it, in this process; `InvalidInputError` if it answers no request."""
    session, session_bytes = open_measured_session(request)
    if request.golden is not None:
        samples = [to_arrays(exchange.request.inputs) for exchange in request.golden.exchanges]
    else:
        samples = [generate_sample(session)]
    meter = RunMeter(session, samples)
    points = [*meter.measure_row_counts(), *meter.measure_wide_rows()]
    return RequestCost(tuple(points), session_bytes, rows_independent=meter.are_rows_independent())


def generate_sample(session: Session) -> Feeds:
    """Generate a request of some rows from the signature."""
    random = np.random.default_rng(0)
    return {
        spec.name: generate_input(spec, ROWS_TOGETHER, random)
        if spec.datatype != "BYTES"
        else np.full([abs(size) for size in spec.v2_shape], "text", object)
        for spec in session.inputs
    }


def open_measured_session(request: CostMeasurementRequest) -> tuple[Session, int]:
    """Open the session, and return it with the memory that it takes."""
    graph_bytes = sum(path.stat().st_size for path in Path(request.graph).parent.glob(Path(request.graph).name + "*"))
    with malloc.return_freed_memory():
        resident, _ = process_memory.measure_own_memory()
        session = open_session(request.graph, request.memory_mb)
        opened_bytes = process_memory.measure_own_memory()[0] - resident
        if graph_bytes < SMALL_GRAPH_BYTES:
            allocated = malloc.count_allocated_bytes()
            again = open_session(request.graph, request.memory_mb)
            opened_bytes = malloc.count_allocated_bytes() - allocated
            del again
    return session, max(graph_bytes, opened_bytes)


class RunMeter:
    """Measures runs of one session, within `MEASURE_SECONDS` for all of them together."""

    def __init__(self, session: Session, samples: Sequence[Feeds]) -> None:
        self._session = session
        self._samples = samples
        self._runner = DeadlineRunner()
        self._deadline = time.monotonic() + MEASURE_SECONDS
        self._outputs = [spec.name for spec in session.outputs]
        first = session.inputs[0] if session.inputs else None
        self._has_rows = first is not None and bool(first.shape) and isinstance(first.shape[0], str)
        self._row_bytes = sum(feed.nbytes for feed in self._build_feeds(1).values())

    def measure_row_counts(self) -> list[CostPoint]:
        """Measure runs of several numbers of rows, at least one; one alone if the graph leaves no choice."""
        points: list[CostPoint] = []
        for rows in ROW_COUNTS if self._has_rows else ROW_COUNTS[:1]:
            growth = rows / points[-1].rows if points else 0.0
            if points and not self._has_room_for(points[-1], growth):
                break
            point = self._measure(rows, self._build_feeds(rows), self._row_bytes)
            if point is None:
                break
            points.append(point)
        if not points:
            raise InvalidInputError("its first request takes too long, or is refused.")
        return points

    def measure_wide_rows(self) -> list[CostPoint]:
        """Measure one row with its free sizes enlarged; empty if there is none, or the graph takes no larger row."""
        names = {name for spec in self._session.inputs for name in list_free_sizes(spec)}
        for widening in WIDENINGS if names else ():
            factor = max(2, round(widening ** (1 / len(names))))
            feeds = {
                spec.name: enlarge_row(self._build_feeds(1)[spec.name], spec, factor) for spec in self._session.inputs
            }
            point = self._measure(1, feeds, sum(feed.nbytes for feed in feeds.values()))
            if point is not None:
                return [point]
        return []

    def are_rows_independent(self) -> bool:
        """Return whether different rows have the same answers together as alone, each in its place."""
        specs = (*self._session.inputs, *self._session.outputs)
        if not self._session.inputs or not all(spec.shape and isinstance(spec.shape[0], str) for spec in specs):
            return False
        feeds = self._build_feeds(ROWS_TOGETHER)
        if not has_distinct_rows(feeds):
            return False
        try:
            together = self._run(feeds)
            alone = [
                self._run({name: feed[row : row + 1] for name, feed in feeds.items()}) for row in range(ROWS_TOGETHER)
            ]
        except (InvalidInputError, DeadlineError, MemoryError):
            return False
        return all(is_concatenation(values, [answers[name] for answers in alone]) for name, values in together.items())

    def _has_room_for(self, point: CostPoint, growth: float) -> bool:
        """Return whether a run `growth` times as large may be tried: by its time, thrice, and by its memory."""
        seconds = 3 * point.ms / 1000 * growth
        return time.monotonic() + seconds < self._deadline and point.peak_bytes * growth < MAX_PEAK_BYTES

    def _measure(self, rows: int, feeds: Feeds, row_bytes: int) -> CostPoint | None:
        """Measure runs of these feeds; None if the graph refuses them or they take too long."""
        seconds: list[float] = []
        try:
            answers = self._run(feeds)  # the first run is slower
            while len(seconds) < MAX_RUNS and (not seconds or time.monotonic() + seconds[-1] < self._deadline):
                started_at = time.perf_counter()
                self._run(feeds)
                seconds.append(time.perf_counter() - started_at)
            peak_bytes = self._measure_peak(feeds)
        except (InvalidInputError, DeadlineError, MemoryError):
            return None
        output_bytes = sum(values.nbytes for values in answers.values())
        return CostPoint(rows, row_bytes, 1000 * median(seconds), max(peak_bytes, output_bytes), output_bytes)

    def _measure_peak(self, feeds: Feeds) -> int:
        """Measure the memory that a run adds at its peak."""
        with malloc.return_freed_memory():
            malloc.return_all_freed_memory()
            before = (
                process_memory.measure_own_memory()[0]
                if process_memory.reset_peak()
                else (process_memory.peak_resident_bytes())
            )
            self._run(feeds)
            return max(0, process_memory.peak_resident_bytes() - before)

    def _run(self, feeds: Feeds) -> Mapping[str, Array]:
        return self._runner.run(self._session, feeds, self._outputs, self._deadline + MEASURE_SECONDS)

    def _build_feeds(self, rows: int) -> dict[str, Array]:
        """Build feeds of different rows from the samples; an input without free rows is that of the first sample."""
        return {
            spec.name: build_rows([sample[spec.name] for sample in self._samples], rows)
            if self._has_rows and spec.shape and isinstance(spec.shape[0], str)
            else self._samples[0][spec.name]
            for spec in self._session.inputs
        }


def build_rows(samples: Sequence[Array], rows: int) -> Array:
    """Build an array of `rows` rows from those of the samples; repeated ones are varied."""
    pool = np.concatenate([sample for sample in samples if sample.shape[1:] == samples[0].shape[1:]])
    picked = pool[np.arange(rows) % len(pool)]
    return np.stack([vary_row(row, number // len(pool)) for number, row in enumerate(picked)]) if rows else picked


def vary_row(row: Array, times: int) -> Array:
    """Vary a row so that it stays valid: floats shrink, other values move along the row, single ones count up."""
    if not times or row.dtype == object:
        return row
    if row.dtype.kind == "f":
        return (row * (1 - 0.05 * (times % 16))).astype(row.dtype)
    if row.ndim and row.shape[-1] > 1:
        return np.roll(row, times, axis=-1)
    return row


def has_distinct_rows(feeds: Feeds) -> bool:
    """Return whether no two rows of the feeds are equal in all inputs; equal ones would show no dependence."""
    rows = [tuple(feed[row].tobytes() if feed.dtype != object else str(feed[row]) for feed in feeds.values())
            for row in range(len(next(iter(feeds.values()))))]  # fmt: skip
    return len(set(rows)) == len(rows)


def list_free_sizes(spec: TensorSpec) -> list[str]:
    """List the names of the free dimensions behind the first."""
    return [size for size in spec.shape[1:] if isinstance(size, str)]


def enlarge_row(feed: Array, spec: TensorSpec, factor: int) -> Array:
    """Repeat an input along each free dimension behind the first."""
    free = set(list_free_sizes(spec))
    return np.tile(feed, [factor if place and size in free else 1 for place, size in enumerate(spec.shape)])


def is_concatenation(together: Array, alone: Sequence[Array]) -> bool:
    """Return whether an output of several rows is that of each row alone, one after the other, up to rounding."""
    if any(values.shape != (1, *together.shape[1:]) for values in alone) or len(together) != len(alone):
        return False
    joined = np.concatenate(alone)
    if together.dtype.kind != "f":
        return bool(np.array_equal(joined, together))
    if not np.array_equal(np.isfinite(joined), np.isfinite(together)):
        return False
    expected, found = (np.nan_to_num(values.astype(np.float64)) for values in (joined, together))
    return bool(np.abs(expected - found).max(initial=0.0) <= TOLERANCE * np.abs(expected).max(initial=0.0))


def main() -> None:
    """Read the request from standard input, measure, and write the cost to standard output."""
    request = decode_document(sys.stdin.buffer.read(), CostMeasurementRequest, "the request")
    sys.stdout.buffer.write(msgspec.json.encode(measure_graph(request)))


if __name__ == "__main__":
    try:
        main()
    except PilotlightError as exc:
        sys.exit(str(exc))
