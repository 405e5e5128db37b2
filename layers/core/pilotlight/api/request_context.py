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
from pilotlight.observability.correlation import HEADER, REQUEST_ID

GATEWAY_S = 29.0  # after which API Gateway answers 504 itself
MARGIN_S = 0.5  # left over to write the error and send it
SAM_LOCAL = "AWS_SAM_LOCAL"  # set by the SAM CLI, whose every event says that it was received when the CLI started


class Trace:
    """One call, from the event's arrival to the answer. Times are seconds on time.perf_counter's clock."""

    __slots__ = ("_last", "began", "cold", "correlation", "ends", "marks", "model", "queue", "version")

    def __init__(self, ends: float = inf, queue: float | None = None) -> None:
        self.began = self._last = time.perf_counter()
        self.ends = ends  # on time.monotonic's clock
        self.queue = queue  # s between gateway and handler; None where it is not known
        self.marks: list[tuple[str, float]] = []
        self.cold = False
        self.model = ""  # this and the version are known once it is open
        self.version: int | None = None
        self.correlation = ""

    @classmethod
    def of(cls, event: Mapping[str, Any], context: object) -> "Trace":
        """The call's end, by the function's timeout and by the gateway's, and the time that it has queued."""
        remaining = getattr(context, "get_remaining_time_in_millis", None)
        left = remaining() / 1000 if remaining is not None else inf
        told = event.get("requestContext") or {}
        received = told.get("requestTimeEpoch") if SAM_LOCAL not in os.environ else None  # ms
        queue = time.time() - received / 1000 if isinstance(received, int | float) else None
        if queue is None or not 0 <= queue < GATEWAY_S:  # the event was recorded earlier, or the clocks differ
            queue = None
        else:
            left = min(left, GATEWAY_S - queue)
        trace = cls(time.monotonic() + left - MARGIN_S, queue)
        trace.correlation = told.get("requestId") or ""
        return trace

    def mark(self, name: str) -> None:
        """What has passed since the last mark was spent on `name`."""
        now = time.perf_counter()
        self.marks.append((name, now - self._last))
        self._last = now

    def timing(self, total: float) -> str:
        """The Server-Timing header, in ms; a call that marked nothing has its total alone."""
        parts = [f"{name};dur={seconds * 1e3:.3f}" for name, seconds in self.marks]
        if self.queue is not None:
            parts.insert(0, f"queue;dur={self.queue * 1e3:.0f}")
        parts.append(f"total;dur={total * 1e3:.3f}")
        return ", ".join(parts)


class Bill:
    """What calls of this environment cost. Its first call pays for the init too, unless AWS bills that otherwise."""

    def __init__(self, memory_mb: int, environment: Mapping[str, str] = os.environ) -> None:
        self._gb = prices.gb_seconds(memory_mb, prices.MS_PER_S)
        self._usd_per_gb_second = prices.LAMBDA_GB_SECOND[prices.architecture(platform.machine())]
        on_demand = environment.get("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand") == "on-demand"
        self._init = process_seconds() if on_demand else 0.0
        self._first = True

    def charge(self, trace: Trace, invocations: float = 1.0) -> "Charge":
        """What a call took and cost; one that has only a share of an invocation is not rounded up to a whole ms."""
        total = time.perf_counter() - trace.began
        seconds = total + self._init if self._first else total
        cold, self._first = self._first or trace.cold, False
        milliseconds = prices.billed_ms(seconds)
        used = self._gb * (milliseconds / prices.MS_PER_S if invocations == 1 else seconds)
        usd = prices.LAMBDA_REQUEST * invocations + used * self._usd_per_gb_second
        return Charge(total, cold, milliseconds, f"{used:.6f}", f"{usd:.12f}")


class Charge(Struct, frozen=True):
    """What one call took, in seconds, and what it cost; as texts where header and log must say the same."""

    total: float
    cold: bool
    milliseconds: int  # billed
    gb_seconds: str
    usd: str

    def headers(self, trace: Trace) -> dict[str, str]:
        """The headers that tell the caller."""
        headers = {
            "server-timing": trace.timing(self.total),
            "x-pilotlight-cold": "true" if self.cold else "false",
            "x-pilotlight-billed-ms": str(self.milliseconds),
            "x-pilotlight-gb-seconds": self.gb_seconds,
            "x-pilotlight-usd": self.usd,
        }
        if trace.version is not None:
            headers["x-pilotlight-version"] = str(trace.version)
        if trace.correlation:
            headers[HEADER] = headers[REQUEST_ID] = trace.correlation
        return headers


def process_seconds() -> float:
    """How long this process lives already; 0 where the system does not say (it says so in /proc, on Linux)."""
    try:
        with open("/proc/self/stat") as stat, open("/proc/uptime") as uptime:  # noqa: PTH123 - 3 ms less than pathlib
            began = int(stat.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
            return max(0.0, float(uptime.read().split()[0]) - began)
    except OSError:
        return 0.0
