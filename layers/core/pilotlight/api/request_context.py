"""What one call takes, and what it costs, as headers of its answer; and until when it must be answered.

    server-timing: queue;dur=3.1, load;dur=0.004, decode;dur=0.051, infer;dur=0.11, encode;dur=0.02, total;dur=0.19
    x-pilotlight-version: 3             the version that answered
    x-pilotlight-cold: false            true for an environment's first call, and for one that waited for a model
    x-pilotlight-billed-ms: 1           as Lambda bills it: each ms begun, with the init of a cold environment
    x-pilotlight-gb-seconds: 0.001728
    x-pilotlight-usd: 0.000000228793    the call's price on Lambda, by pilotlight.costs.prices
    x-correlation-id: ...               the caller's own, else the gateway's; also in the log
    x-request-id: ...                   the same, where openai's client looks for it

Time and price are told before the answer is on its way, so they leave out the runtime's own millisecond.
"""

import os
import platform
import time
from collections.abc import Mapping
from math import inf
from typing import Any

from msgspec import Struct

from pilotlight.costs import prices
from pilotlight.observability.correlation import CORRELATION_HEADER, REQUEST_ID_HEADER

GATEWAY_TIMEOUT_S = 29.0  # after which API Gateway answers 504 itself
DEADLINE_MARGIN_S = 0.5  # left over to write the error and send it
SAM_LOCAL = "AWS_SAM_LOCAL"  # set by the SAM CLI, whose every event says that it was received when the CLI started


class RequestContext:
    """One call, from the event's arrival to the answer. Times are seconds on time.perf_counter's clock."""

    __slots__ = ("_last", "cold", "correlation", "deadline", "marks", "model", "queue_seconds", "start_time", "version")

    def __init__(self, deadline: float = inf, queue_seconds: float | None = None) -> None:
        self.start_time = self._last = time.perf_counter()
        self.deadline = deadline  # on time.monotonic's clock
        self.queue_seconds = queue_seconds  # s between gateway and handler; None where it is not known
        self.marks: list[tuple[str, float]] = []
        self.cold = False
        self.model = ""  # this and the version are known once it is open
        self.version: int | None = None
        self.correlation = ""

    @classmethod
    def from_event(cls, event: Mapping[str, Any], context: object) -> "RequestContext":
        """The call's end, by the function's timeout and by the gateway's, and the time that it has queued."""
        remaining = getattr(context, "get_remaining_time_in_millis", None)
        remaining_seconds = remaining() / 1000 if remaining is not None else inf
        gateway_context = event.get("requestContext") or {}
        received = gateway_context.get("requestTimeEpoch") if SAM_LOCAL not in os.environ else None  # ms
        queue_seconds = time.time() - received / 1000 if isinstance(received, int | float) else None
        if (
            queue_seconds is None or not 0 <= queue_seconds < GATEWAY_TIMEOUT_S
        ):  # the event was recorded earlier, or the clocks differ
            queue_seconds = None
        else:
            remaining_seconds = min(remaining_seconds, GATEWAY_TIMEOUT_S - queue_seconds)
        trace = cls(time.monotonic() + remaining_seconds - DEADLINE_MARGIN_S, queue_seconds)
        trace.correlation = gateway_context.get("requestId") or ""
        return trace

    def mark_stage(self, name: str) -> None:
        """What has passed since the last mark was spent on `name`."""
        now = time.perf_counter()
        self.marks.append((name, now - self._last))
        self._last = now

    def format_server_timing(self, total: float) -> str:
        """The Server-Timing header, in ms; a call that marked nothing has its total alone."""
        parts = [f"{name};dur={seconds * 1e3:.3f}" for name, seconds in self.marks]
        if self.queue_seconds is not None:
            parts.insert(0, f"queue;dur={self.queue_seconds * 1e3:.0f}")
        parts.append(f"total;dur={total * 1e3:.3f}")
        return ", ".join(parts)


class CostMeter:
    """What calls of this environment cost. Its first call pays for the init too, unless AWS bills that otherwise."""

    def __init__(self, memory_mb: int, environment: Mapping[str, str] = os.environ) -> None:
        self._gb_per_second = prices.compute_gb_seconds(memory_mb, prices.MS_PER_S)
        self._usd_per_gb_second = prices.LAMBDA_GB_SECOND[prices.to_lambda_architecture(platform.machine())]
        on_demand = environment.get("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand") == "on-demand"
        self._init_seconds = read_process_age() if on_demand else 0.0
        self._is_first_call = True

    def measure_call(self, trace: RequestContext, invocations: float = 1.0) -> "CallCost":
        """What a call took and cost; one that has only a share of an invocation is not rounded up to a whole ms."""
        total = time.perf_counter() - trace.start_time
        seconds = total + self._init_seconds if self._is_first_call else total
        cold, self._is_first_call = self._is_first_call or trace.cold, False
        milliseconds = prices.round_to_billed_ms(seconds)
        gb_seconds = self._gb_per_second * (milliseconds / prices.MS_PER_S if invocations == 1 else seconds)
        usd = prices.LAMBDA_REQUEST * invocations + gb_seconds * self._usd_per_gb_second
        return CallCost(total, cold, milliseconds, f"{gb_seconds:.6f}", f"{usd:.12f}")


class CallCost(Struct, frozen=True):
    """What one call took, in seconds, and what it cost; as texts where header and log must say the same."""

    total: float
    cold: bool
    milliseconds: int  # billed
    gb_seconds: str
    usd: str

    def to_headers(self, trace: RequestContext) -> dict[str, str]:
        """The headers that tell the caller."""
        headers = {
            "server-timing": trace.format_server_timing(self.total),
            "x-pilotlight-cold": "true" if self.cold else "false",
            "x-pilotlight-billed-ms": str(self.milliseconds),
            "x-pilotlight-gb-seconds": self.gb_seconds,
            "x-pilotlight-usd": self.usd,
        }
        if trace.version is not None:
            headers["x-pilotlight-version"] = str(trace.version)
        if trace.correlation:
            headers[CORRELATION_HEADER] = headers[REQUEST_ID_HEADER] = trace.correlation
        return headers


def read_process_age() -> float:
    """How long this process lives already; 0 where the system does not say (it says so in /proc, on Linux)."""
    try:
        with open("/proc/self/stat") as stat, open("/proc/uptime") as uptime:  # noqa: PTH123 - 3 ms less than pathlib
            start_seconds = int(stat.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
            return max(0.0, float(uptime.read().split()[0]) - start_seconds)
    except OSError:
        return 0.0
