"""What one environment has answered so far, in the words of Triton's statistics extension.

Counts and nanoseconds by version, in this environment's memory alone: a function has as many as it has environments,
and the gateway chooses which one tells. It knows versions by key, not models. Nothing waits in a queue here and nothing
is cached, so `queue` and `cache_*` stay 0: a Lambda environment is handed one request at a time.
"""

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from pilotlight.runtime.model_cache import VersionKey

PHASES = ("compute_input", "compute_infer", "compute_output")  # decode and check; the graph; encode
UNUSED_COUNTERS = ("queue", "cache_hit", "cache_miss")
Clock = Callable[[], int]


class Duration:
    """How often something happened, and how long it took in all."""

    __slots__ = ("count", "ns")

    def __init__(self) -> None:
        self.count = 0
        self.ns = 0

    def add(self, ns: int) -> None:
        """Once more."""
        self.count += 1
        self.ns += ns

    def to_document(self) -> dict[str, int]:
        """The extension's form of it."""
        return {"count": self.count, "ns": self.ns}


class VersionStatistics:
    """What one version has done; `batches` has the three phases by the number of items."""

    def __init__(self) -> None:
        self.success = Duration()
        self.fail = Duration()
        self.items = 0
        self.last_ms = 0  # since 1970
        self.batches: dict[int, tuple[Duration, Duration, Duration]] = {}

    def record_success(self, ns: int, phases: tuple[int, int, int], items: int) -> None:
        """An answer to `items` inferences at once, `ns` in all, of which `phases`."""
        self.success.add(ns)
        self.items += items
        self.last_ms = time.time_ns() // 1_000_000
        if items not in self.batches:
            self.batches[items] = Duration(), Duration(), Duration()
        for duration, taken in zip(self.batches[items], phases, strict=True):
            duration.add(taken)

    def to_document(self, key: VersionKey, memory_bytes: int | None) -> dict[str, Any]:
        """One entry of `model_stats`; `memory_bytes` is what the version takes in memory, None when it is not open."""
        durations: dict[str, Any] = {"success": self.success.to_document(), "fail": self.fail.to_document()}
        durations |= {name: Duration().to_document() for name in UNUSED_COUNTERS}
        durations |= {phase: self._sum_phase(place) for place, phase in enumerate(PHASES)}
        memory = [] if memory_bytes is None else [{"type": "CPU", "id": 0, "byte_size": memory_bytes}]
        return {
            "name": key[0],
            "version": str(key[1]),
            "last_inference": self.last_ms,
            "inference_count": self.items,
            "execution_count": self.success.count,
            "inference_stats": durations,
            "response_stats": {},
            "batch_stats": [format_batch_stats(items, phases) for items, phases in sorted(self.batches.items())],
            "memory_usage": memory,
        }

    def _sum_phase(self, index: int) -> dict[str, int]:
        durations = [phases[index] for phases in self.batches.values()]
        return {"count": sum(each.count for each in durations), "ns": sum(each.ns for each in durations)}


def format_batch_stats(items: int, phases: tuple[Duration, ...]) -> dict[str, Any]:
    """One entry of `batch_stats`."""
    spent = {phase: duration.to_document() for phase, duration in zip(PHASES, phases, strict=True)}
    return {"batch_size": items, **spent}


class CallTimer:
    """One inference while it runs: `with` it around the work, and say when a phase is over.

    What leaves the `with` by an exception counts as a failure.
    """

    __slots__ = ("_clock", "_infer", "_input", "_record", "_start", "items")

    def __init__(self, record: VersionStatistics, clock: Clock) -> None:
        self._record = record
        self._clock = clock
        self.items = 1

    def __enter__(self) -> "CallTimer":
        self._start = self._input = self._infer = self._clock()
        return self

    def mark_decoded(self, items: int) -> None:
        """The input is read and checked; it holds this many items."""
        self.items, self._input = items, self._clock()

    def mark_inferred(self) -> None:
        """The graph has run."""
        self._infer = self._clock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end = self._clock()
        if kind is not None:
            self._record.fail.add(end - self._start)
            return
        phases = self._input - self._start, self._infer - self._input, end - self._infer
        self._record.record_success(end - self._start, phases, self.items)


class ModelStatistics:
    """The records of all versions that this environment was asked for."""

    def __init__(self, clock: Clock = time.perf_counter_ns) -> None:
        self._clock = clock
        self._records: dict[VersionKey, VersionStatistics] = {}

    def start_call(self, key: VersionKey) -> CallTimer:
        """An inference of the version is about to start."""
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = VersionStatistics()
        return CallTimer(record, self._clock)

    def list_versions(self, name: str | None = None) -> list[VersionKey]:
        """The versions with a record, those of one model or all."""
        return sorted(key for key in self._records if name in (None, key[0]))

    def build_document(self, keys: Iterable[VersionKey], memory_bytes: dict[VersionKey, int]) -> dict[str, Any]:
        """The body of the extension's answer for these versions; zeros for one that nobody asked for yet."""
        return {
            "model_stats": [
                self._records.get(key, VersionStatistics()).to_document(key, memory_bytes.get(key)) for key in keys
            ]
        }
