"""Weigh a run of a graph against the memory and the time that are left: run it, run it in parts, or refuse it.

Parts are for graphs whose rows do not depend on each other, which publishing has tried (`runtime.cost_measurement`).
This module depends on feeds and costs, not on protocols.
"""

import time
from collections.abc import Mapping, Sequence
from math import inf

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from pilotlight.contracts.manifest import Manifest
from pilotlight.errors import OutOfMemoryError, TooLargeError
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.environment_memory import DATA_LIMIT, EnvironmentMemory
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.model_cache import LoadedModel
from pilotlight.runtime.recurrence import Recurrence, run_rows
from pilotlight.runtime.request_cost import LIGHT_BYTES, LIGHT_SECONDS, MIN_RATED_SECONDS, VersionCost

MAX_PART_BYTES = 32_000_000  # bytes of memory of one part; glibc reuses blocks of up to 32 MB, larger ones cost faults
MAX_COSTS = 1000  # versions whose cost is known, of about 1 kB each
MB = 1_000_000
ADVICE = "Send fewer at once, or raise MemorySize in template.yaml (parameter ModelMemory)."

Feeds = Mapping[str, Array]


class Run(Struct, frozen=True):
    """What is to be run: the model, its feeds, the wanted outputs, and the limits."""

    model: LoadedModel
    feeds: Feeds
    outputs: Sequence[str]
    rows: int
    answer_factor: float = 0.0  # bytes of the encoded answer for each byte of the outputs
    deadline: float = inf  # on time.monotonic's clock
    recurrence: Recurrence | None = None  # how the rows are run one after another

    @property
    def feed_bytes(self) -> int:
        """The bytes of all feeds."""
        return sum([feed.nbytes for feed in self.feeds.values()])


class RequestRunner:
    """Runs graphs within the memory and the time of one environment, and learns what they cost."""

    def __init__(self, deadline_runner: DeadlineRunner, memory: EnvironmentMemory, slowdown: float = 1.0) -> None:
        """Create a runner; `slowdown` is how much slower this environment is than the machine that measured."""
        self.memory = memory
        self._deadline_runner = deadline_runner
        self._slowdown = slowdown
        self._costs: dict[str, VersionCost] = {}  # by the nonce of the manifest

    def run(self, run: Run) -> dict[str, Array]:
        """Run the graph; raise `TooLargeError`, with how much would fit, for what does not fit."""
        if run.recurrence is not None:
            return self._run_in_order(run, run.recurrence)
        cost, feed_bytes = self.get_cost(run.model.manifest), run.feed_bytes
        row_bytes = feed_bytes / max(1, run.rows)
        if cost.is_light(run.rows, feed_bytes):
            return self._run_once(run, cost, row_bytes)
        part_rows = self._plan_part(run, cost, row_bytes)
        try:
            if part_rows < run.rows:
                return self._run_parts(run, cost, part_rows)
            return self._run_once(run, cost, row_bytes)
        except (MemoryError, OutOfMemoryError) as exc:
            cost.record_exhaustion(part_rows, row_bytes, self.memory.free_bytes)
            raise self._build_refusal(run, cost, row_bytes, inf) from exc

    def check_rows(self, manifest: Manifest, rows: int, deadline: float) -> None:
        """Refuse rows that would take too long in the graph alone, before they are decoded or prepared for it."""
        cost = self.get_cost(manifest)
        if rows <= 1 or cost.is_light(rows, 0) or not cost.is_measured or not has_free_first_input(manifest):
            return
        seconds = cost.predict_seconds(rows, 0.0)
        if seconds > LIGHT_SECONDS and seconds > (left := max(0.0, deadline - time.monotonic())):
            fitting = cost.count_rows_for_seconds(left, 0.0)
            raise TooLargeError(
                f"{rows:,} rows of {manifest.name}:{manifest.version} would take about {1000 * seconds:,.0f} ms; "
                f"{1000 * left:,.0f} ms are left, enough for {fitting:,}. {ADVICE}"
            )

    def get_cost(self, manifest: Manifest) -> VersionCost:
        """Return what is known of a version's cost."""
        cost = self._costs.get(manifest.nonce)
        if cost is None:
            if len(self._costs) >= MAX_COSTS:
                self._costs.clear()  # they are learned again
            cost = self._costs[manifest.nonce] = VersionCost(manifest, self._slowdown)
        return cost

    def _plan_part(self, run: Run, cost: VersionCost, row_bytes: float) -> int:
        """Choose how many rows are run at once; refuse the run if it does not fit."""
        needed, seconds = cost.predict_bytes(run.rows, row_bytes), cost.predict_seconds(run.rows, row_bytes)
        answer = cost.predict_output_bytes(run.rows, row_bytes) * run.answer_factor
        if needed + answer <= LIGHT_BYTES and seconds <= LIGHT_SECONDS:
            return run.rows
        DATA_LIMIT.renew()
        free, left = self.memory.free_bytes, run.deadline - time.monotonic()
        part_rows = choose_part_rows(run, cost, row_bytes, free)
        if estimate_needed_bytes(run, cost, row_bytes, part_rows) > free or (
            run.rows > 1 and seconds > left  # one row alone is tried, and stopped at the deadline
        ):
            raise self._build_refusal(run, cost, row_bytes, left)
        return part_rows

    def _run_once(self, run: Run, cost: VersionCost, row_bytes: float) -> dict[str, Array]:
        started_at = time.perf_counter()
        results = self._deadline_runner.run(run.model.session, run.feeds, run.outputs, run.deadline)
        seconds = time.perf_counter() - started_at
        if seconds >= MIN_RATED_SECONDS:
            cost.record_seconds(run.rows, row_bytes, seconds)
        return results

    def _run_in_order(self, run: Run, recurrence: Recurrence) -> dict[str, Array]:
        """Run row by row, within the time and the memory for the outputs."""
        cost, row_bytes = self.get_cost(run.model.manifest), run.feed_bytes / max(1, run.rows)
        answer = cost.predict_output_bytes(run.rows, row_bytes) * max(1.0, run.answer_factor)
        if answer > LIGHT_BYTES and answer > self.memory.free_bytes:
            raise self._build_refusal(run, cost, row_bytes, inf)

        def run_row(feeds: Feeds, outputs: Sequence[str]) -> dict[str, Array]:
            return self._deadline_runner.run(run.model.session, feeds, outputs, run.deadline)

        return dict(run_rows(run.feeds, run.outputs, recurrence, run_row, run.deadline))

    def _run_parts(self, run: Run, cost: VersionCost, part_rows: int) -> dict[str, Array]:
        """Run part by part, and stop as soon as it is clear that the time will not suffice.

        The first part is no sign of that: memory that is used for the first time takes longer.
        """
        collected: dict[str, Array] = {}
        for start in range(0, run.rows, part_rows):
            end, started_at = min(start + part_rows, run.rows), time.monotonic()
            part = replace(run, feeds={name: feed[start:end] for name, feed in run.feeds.items()}, rows=end - start)
            for name, values in self._run_once(part, cost, part.feed_bytes / part.rows).items():
                collect_rows(collected, name, values, (start, end, run.rows))
            now = time.monotonic()
            row_seconds, left = (now - started_at) / part.rows, run.deadline - now
            if start and row_seconds * (run.rows - end) > left:
                raise TooLargeError(
                    f"{run.rows:,} rows of {name_version(run)} take about {1000 * row_seconds * run.rows:,.0f} ms, and "
                    f"{max(0.0, 1000 * left):,.0f} ms are left after {end:,} of them, enough for "
                    f"{end + int(max(0.0, left) / row_seconds):,} in all. {ADVICE}"
                )
        return collected

    def _build_refusal(self, run: Run, cost: VersionCost, row_bytes: float, seconds_left: float) -> TooLargeError:
        """Build the error: what the rows would take, what is left, and how many would fit."""
        free, left = self.memory.free_bytes, max(0.0, seconds_left)
        part_rows = choose_part_rows(run, cost, row_bytes, free)
        needed = estimate_needed_bytes(run, cost, row_bytes, part_rows)
        fixed = cost.predict_bytes(part_rows if part_rows < run.rows else 0, row_bytes)
        by_memory = (free - fixed) / max(1.0, needed - fixed) * run.rows
        by_time = cost.count_rows_for_seconds(left, row_bytes)
        fitting = max(0, min(run.rows - 1, int(by_memory), by_time))
        seconds = cost.predict_seconds(run.rows, row_bytes)
        took = f" and {1000 * seconds:,.0f} ms" if seconds else ""
        remaining = f" and {1000 * left:,.0f} ms" if left != inf else ""
        return TooLargeError(
            f"{run.rows:,} {'rows' if run.rows > 1 else 'row'} of {name_version(run)} would take about "
            f"{needed / MB:,.0f} MB{took}; {free / MB:,.0f} MB{remaining} are left, enough for {fitting:,}. {ADVICE}"
        )


def has_free_first_input(manifest: Manifest) -> bool:
    """Return whether the first dimension of the first input, which counts rows, is free."""
    return bool(manifest.inputs and manifest.inputs[0].shape) and isinstance(manifest.inputs[0].shape[0], str)


def choose_part_rows(run: Run, cost: VersionCost, row_bytes: float, free_bytes: int) -> int:
    """Choose how many rows are run at once: all, unless the graph's rows may be divided and take much memory."""
    divisible = cost.is_divisible and all(len(feed) == run.rows for feed in run.feeds.values())
    part_bytes = min(MAX_PART_BYTES, free_bytes // 2)
    if not divisible or cost.predict_bytes(run.rows, row_bytes) <= part_bytes:
        return run.rows
    return min(run.rows, max(1, cost.count_rows_for_bytes(part_bytes, row_bytes)))


def estimate_needed_bytes(run: Run, cost: VersionCost, row_bytes: float, part_rows: int) -> float:
    """Estimate the memory of a run in parts of `part_rows`, with its outputs and its answer."""
    outputs = cost.predict_output_bytes(run.rows, row_bytes)
    collected = outputs if part_rows < run.rows else 0.0
    return max(1.0, cost.predict_bytes(part_rows, row_bytes) + collected + outputs * run.answer_factor)


def name_version(run: Run) -> str:
    """Name the version in a message."""
    return f"{run.model.manifest.name}:{run.model.manifest.version}"


def collect_rows(collected: dict[str, Array], name: str, values: Array, place: tuple[int, int, int]) -> None:
    """Copy a part's rows of an output to their place, from row to row of all rows; they must have one shape."""
    start, end, rows = place
    if name not in collected:
        collected[name] = np.empty((rows, *values.shape[1:]), values.dtype)
    target = collected[name]
    if values.shape != (end - start, *target.shape[1:]):
        raise TooLargeError(
            f"Output {name!r} has the shape {list(values.shape)} for rows {start} to {end}, and "
            f"{list(target.shape[1:])} for each row before: so many rows cannot be answered at once; send fewer."
        )
    target[start:end] = values
