"""The context of one call: its deadline, the version that answers it, its tenant, and the duration of each stage."""

import os
import time
from collections.abc import Mapping
from math import inf
from typing import Any

from pilotlight.errors import DeadlineError

GATEWAY_TIMEOUT_S = 29.0  # after which API Gateway answers 504
STREAM_TIMEOUT_S = 900.0  # after which it cuts an answer that it passes on
DEADLINE_MARGIN_S = 0.5  # reserved for writing and sending the error
SAM_LOCAL = "AWS_SAM_LOCAL"  # set by the SAM CLI, whose events all have the time at which the CLI started


class RequestContext:
    """One call, from the arrival of its event to its answer. Times are seconds on time.perf_counter's clock."""

    __slots__ = (
        "_last", "cold", "correlation", "deadline", "has_failed", "marks", "model", "queue_seconds", "start_time",
        "tenant", "version",
    )  # fmt: skip

    def __init__(self, deadline: float = inf, queue_seconds: float | None = None) -> None:
        self.start_time = self._last = time.perf_counter()
        self.deadline = deadline  # on time.monotonic's clock
        self.queue_seconds = queue_seconds  # seconds between gateway and handler; None if they are not known
        self.marks: list[tuple[str, float]] = []
        self.cold = False
        self.has_failed = False  # behind the first frame of a streamed answer, whose status tells nothing of it
        self.model = ""  # model and version are known once the model is open
        self.version: int | None = None
        self.correlation = ""
        self.tenant = ""  # whose request it is; empty for the stack's own callers

    @classmethod
    def from_event(
        cls, event: Mapping[str, Any], context: object, gateway_timeout_s: float = GATEWAY_TIMEOUT_S
    ) -> "RequestContext":
        """Create the context of an event, with the deadline by the timeouts of function and gateway."""
        remaining = getattr(context, "get_remaining_time_in_millis", None)
        remaining_seconds = remaining() / 1000 if remaining is not None else inf
        gateway_context = event.get("requestContext") or {}
        received = gateway_context.get("requestTimeEpoch") if SAM_LOCAL not in os.environ else None  # ms
        queue_seconds = time.time() - received / 1000 if isinstance(received, int | float) else None
        if (
            queue_seconds is None or not 0 <= queue_seconds < gateway_timeout_s
        ):  # a recorded event, or the clocks differ
            queue_seconds = None
        else:
            remaining_seconds = min(remaining_seconds, gateway_timeout_s - queue_seconds)
        trace = cls(time.monotonic() + remaining_seconds - DEADLINE_MARGIN_S, queue_seconds)
        trace.correlation = gateway_context.get("requestId") or ""
        return trace

    def check_deadline(self) -> None:
        """Raise `DeadlineError` if the time is over: between parts of an answer that nothing else bounds."""
        if time.monotonic() >= self.deadline:
            raise DeadlineError("The time of this request was over before its answer was whole; send less at once.")

    def mark_stage(self, name: str) -> None:
        """Record the time since the last mark as the duration of the stage `name`."""
        now = time.perf_counter()
        self.marks.append((name, now - self._last))
        self._last = now

    def format_server_timing(self, total: float) -> str:
        """Format the Server-Timing header, in ms; a call without stages has only its total."""
        parts = [f"{name};dur={seconds * 1e3:.3f}" for name, seconds in self.marks]
        if self.queue_seconds is not None:
            parts.insert(0, f"queue;dur={self.queue_seconds * 1e3:.0f}")
        parts.append(f"total;dur={total * 1e3:.3f}")
        return ", ".join(parts)
