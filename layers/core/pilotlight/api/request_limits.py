"""What decoding one request may take: memory that is free, and a bounded time, weighed before anything is decoded.

A body is short and its contents are not: 15 kB of gzip hold 15 MB, and JSON of 6 MB decodes to hundreds. The constants
were measured with the decoders of `v2_tensors`, `mlflow` and `v2_binary` (infra/decisions/0062).
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

from msgspec import Struct

from pilotlight.api.request_context import RequestContext
from pilotlight.contracts.manifest import Manifest
from pilotlight.errors import TooLargeError
from pilotlight.runtime.environment_memory import UNLIMITED_BYTES, EnvironmentMemory
from pilotlight.runtime.request_runner import RequestRunner

MAX_DECODE_SECONDS = 0.6  # s for the decoding of one body, on one vCPU; 6 MB of `[0],` take 0.58 s as MLflow's
INFLATED_BYTES = 6_000_000  # bytes; a larger body has passed the gateway only by being compressed
INFLATED_SECONDS = 0.8  # s for decoding and running such a body, which costs its sender little
WEIGHED_BYTES = 256_000  # bytes; smaller texts decode to a few MB at most, and are not weighed
BODY_SHARE = 4  # a body may take this part of the free memory, since arrays and answers take some too
MB = 1_000_000


class TextCost(Struct, frozen=True):
    """What a decoder takes for each list or object, for each value, and for each line of a text."""

    list_bytes: int
    list_seconds: float
    value_bytes: int
    value_seconds: float
    line_bytes: int = 0
    line_seconds: float = 0.0


JSON_COST = TextCost(140, 0.22e-6, 44, 0.05e-6)  # one decoder of the right type, and numpy
UNTYPED_COST = TextCost(210, 0.28e-6, 48, 0.11e-6)  # decoded to any type, then converted
CSV_COST = TextCost(0, 0.0, 60, 0.15e-6, 120, 0.25e-6)
ELEMENT_BYTES, ELEMENT_SECONDS = 72, 0.55e-6  # of a text or a file in binary form, beside its bytes
NAN_SECONDS = 0.3e-6  # for each NaN of a text, which is replaced before the text is decoded again
WIDEST_CHARACTER = 4  # bytes of memory for each byte of a text that has one wide character


class RequestLimits:
    """The limits of one request in an environment; `context` has its deadline, `runner` knows what rows cost."""

    __slots__ = ("_context", "_memory", "_runner")

    def __init__(self, memory: EnvironmentMemory, context: RequestContext, runner: RequestRunner | None = None) -> None:
        self._memory = memory
        self._context = context
        self._runner = runner

    def get_body_bytes(self, max_bytes: int) -> int:
        """Return how many bytes a body may have once decompressed: at most `max_bytes`."""
        return min(max_bytes, self._memory.free_bytes // BODY_SHARE)

    def note_decompressed(self, size: int) -> None:
        """Shorten the deadline of a body of `size` bytes that could not have been sent as it is."""
        if size > INFLATED_BYTES:
            left = INFLATED_SECONDS - (time.perf_counter() - self._context.start_time)
            self._context.deadline = min(self._context.deadline, time.monotonic() + left)

    def check_text(self, text: bytes, cost: TextCost, end: int | None = None) -> float:
        """Refuse a text whose lists and values, up to `end`, would take too much; return the seconds that they take."""
        size = len(text) if end is None else end
        if size <= WEIGHED_BYTES:
            return 0.0
        lists = text.count(b"[", 0, size) + text.count(b"{", 0, size)
        lines = text.count(b"\n", 0, size) if cost.line_bytes else 0
        values = text.count(b",", 0, size) + lines + 1
        seconds = lists * cost.list_seconds + values * cost.value_seconds + lines * cost.line_seconds
        seconds += text.count(b"NaN", 0, size) * NAN_SECONDS
        self._check(
            f"The {size:,} bytes of text have {values:,} values in {lists + lines:,} lists",
            2 * size + lists * cost.list_bytes + values * cost.value_bytes + lines * cost.line_bytes,
            seconds,
            values,
        )
        return seconds

    def check_rows(self, manifest: Manifest, rows: int, decode_seconds: float = 0.0) -> None:
        """Refuse rows that would take too long in the graph, before they are decoded in `decode_seconds`."""
        if self._runner is not None:
            self._runner.check_rows(manifest, rows, self._context.deadline - decode_seconds)

    def check_elements(self, name: str, count: int, size: int) -> None:
        """Refuse `count` elements of BYTES, in `size` bytes, that would take too much when they are decoded."""
        if size > WEIGHED_BYTES:
            needed = WIDEST_CHARACTER * size + count * ELEMENT_BYTES
            self._check(f"Input {name!r} has {count:,} elements", needed, count * ELEMENT_SECONDS, count)

    def _check(self, what: str, needed: int, seconds: float, count: int) -> None:
        free = self._memory.free_bytes
        if needed <= free and (seconds <= MAX_DECODE_SECONDS or free == UNLIMITED_BYTES):
            return
        fitting = int(count * min(1.0, free / needed, MAX_DECODE_SECONDS / max(seconds, 1e-9)))
        raise TooLargeError(
            f"{what}; decoding them would take about {needed / MB:,.0f} MB and {1000 * seconds:,.0f} ms, and "
            f"{free / MB:,.0f} MB and {1000 * MAX_DECODE_SECONDS:,.0f} ms may be taken, enough for {fitting:,}. Send "
            "fewer at once, or tensors in binary form."
        )


UNLIMITED = RequestLimits(EnvironmentMemory(), RequestContext(inf))


@contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Pause python's collector while a large text is decoded to lists: it takes four fifths of that time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
