"""Statistics of one environment's inferences in the form of Triton's statistics extension.

They are counts and nanoseconds by version, in the memory of this environment alone: the answer to a request covers the
environment that receives it. `queue` and `cache_*` stay 0, since a Lambda environment gets one request at a time and
nothing is cached.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pilotlight.runtime.model_cache import VersionKey

if TYPE_CHECKING:
    from pilotlight.runtime.measured_generation import GenerationOutcome

PHASES = ("compute_input", "compute_infer", "compute_output")  # decode and check; run the graph; encode
UNUSED_COUNTERS = ("queue", "cache_hit", "cache_miss")
Clock = Callable[[], int]
NS_PER_S = 1e9


class Duration:
    """How often something happened, and how long it took in all."""

    __slots__ = ("count", "ns")

    def __init__(self) -> None:
        self.count = 0
        self.ns = 0

    def add(self, ns: int) -> None:
        """Count one more occurrence of `ns` nanoseconds."""
        self.count += 1
        self.ns += ns

    def to_document(self) -> dict[str, int]:
        """Build the extension's form of the duration."""
        return {"count": self.count, "ns": self.ns}


class VersionStatistics:
    """The statistics of one version; `batches` has the three phases by the number of items."""

    def __init__(self) -> None:
        self.success = Duration()
        self.fail = Duration()
        self.items = 0
        self.last_ms = 0  # since 1970
        self.batches: dict[int, tuple[Duration, Duration, Duration]] = {}
        self.generations: GenerationStatistics | None = None  # of a language model

    def record_success(self, ns: int, phases: tuple[int, int, int], items: int) -> None:
        """Record an answer to `items` inferences at once, which took `ns` in total and `phases` in each phase."""
        self.success.add(ns)
        self.items += items
        self.last_ms = time.time_ns() // 1_000_000
        if items not in self.batches:
            self.batches[items] = Duration(), Duration(), Duration()
        for duration, taken in zip(self.batches[items], phases, strict=True):
            duration.add(taken)

    def to_document(self, key: VersionKey, memory_bytes: int | None) -> dict[str, Any]:
        """Build an entry of `model_stats`; `memory_bytes` is the version's size in memory, None if it is not open."""
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
            **({"generation_stats": self.generations.to_document()} if self.generations is not None else {}),
        }

    def _sum_phase(self, index: int) -> dict[str, int]:
        durations = [phases[index] for phases in self.batches.values()]
        return {"count": sum(each.count for each in durations), "ns": sum(each.ns for each in durations)}


class GenerationStatistics:
    """What generations of one version took: times to the first text, tokens, and why the choices ended."""

    def __init__(self) -> None:
        self.first_token = Duration()
        self.decoding = Duration()  # of the events behind the first; its count is of tokens
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = 0
        self.finish_reasons: Counter[str] = Counter()

    def add(self, outcome: "GenerationOutcome") -> None:
        """Add a generation."""
        usage, first = outcome.usage, outcome.first_token_seconds
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.completion_tokens += usage.completion_tokens
        self.finish_reasons.update(reason.value for reason in outcome.finish_reasons)
        if first is not None:
            self.first_token.add(round(NS_PER_S * first))
            self.decoding.count += outcome.decoded_tokens
            self.decoding.ns += round(NS_PER_S * (outcome.seconds - first))

    def to_document(self) -> dict[str, Any]:
        """Build this product's own part of an entry of `model_stats`."""
        return {
            "first_token": self.first_token.to_document(),
            "further_tokens": self.decoding.to_document(),
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            "finish_reasons": dict(self.finish_reasons),
        }


def format_batch_stats(items: int, phases: tuple[Duration, ...]) -> dict[str, Any]:
    """Build one entry of `batch_stats`."""
    spent = {phase: duration.to_document() for phase, duration in zip(PHASES, phases, strict=True)}
    return {"batch_size": items, **spent}


class CallTimer:
    """Times one inference, as a context manager around it; the caller marks the end of each phase.

    An inference that raises an exception counts as a failure.
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
        """Mark the end of decoding, which found this many items."""
        self.items, self._input = items, self._clock()

    def mark_inferred(self) -> None:
        """Mark the end of the graph's run."""
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
    """The statistics of all versions that were requested from this environment."""

    def __init__(self, clock: Clock = time.perf_counter_ns) -> None:
        self._clock = clock
        self._records: dict[VersionKey, VersionStatistics] = {}

    def start_call(self, key: VersionKey) -> CallTimer:
        """Create the timer of an inference of a version."""
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = VersionStatistics()
        return CallTimer(record, self._clock)

    def record_generation(self, key: VersionKey, outcome: "GenerationOutcome") -> None:
        """Record how a generation of a version went; one that nobody waited for is neither success nor failure."""
        record = self._records.setdefault(key, VersionStatistics())
        ns = round(NS_PER_S * outcome.seconds)
        if outcome.error is not None:
            record.fail.add(ns)
        elif not outcome.is_cancelled:
            record.record_success(ns, (0, ns, 0), max(1, len(outcome.finish_reasons)))
        record.generations = record.generations or GenerationStatistics()
        record.generations.add(outcome)

    def list_versions(self, name: str | None = None) -> list[VersionKey]:
        """List the versions with a record, of one model or of all."""
        return sorted(key for key in self._records if name in (None, key[0]))

    def build_document(self, keys: Iterable[VersionKey], memory_bytes: dict[VersionKey, int]) -> dict[str, Any]:
        """Build the body of the extension's answer for these versions, with zeros for those without a request."""
        return {
            "model_stats": [
                self._records.get(key, VersionStatistics()).to_document(key, memory_bytes.get(key)) for key in keys
            ]
        }
