"""Measure the duration and the cost of a call, and write them as headers of its answer.

    server-timing: queue;dur=3.1, load;dur=0.004, decode;dur=0.051, infer;dur=0.11, encode;dur=0.02, total;dur=0.19
    x-pilotlight-version: 3             the version that answered
    x-pilotlight-cold: false            true for an environment's first call, and for a call that waited for a model
    x-pilotlight-billed-ms: 1           as Lambda bills it: rounded up to 1 ms, with the init of a cold environment
    x-pilotlight-gb-seconds: 0.001728
    x-pilotlight-usd: 0.000000228793    the call's price on Lambda, by pilotlight.costs.prices
    x-pilotlight-usd-per-second: ...    of a streamed answer, whose duration is not known when its headers are sent
    x-correlation-id: ...               the caller's own, else the gateway's; also in the log
    x-request-id: ...                   the same, for openai's client

Duration and price are computed before the answer is sent, so they do not include the runtime's own millisecond.
"""

import os
import platform
import time
from collections.abc import Mapping

from msgspec import Struct

from pilotlight.api.request_context import RequestContext
from pilotlight.costs import prices
from pilotlight.observability.correlation import CORRELATION_HEADER, REQUEST_ID_HEADER


class CostMeter:
    """Measures the calls of an environment. The first includes the init, unless AWS bills that separately."""

    def __init__(self, memory_mb: int, environment: Mapping[str, str] = os.environ) -> None:
        self._gb_per_second = prices.compute_gb_seconds(memory_mb, prices.MS_PER_S)
        self._usd_per_gb_second = prices.LAMBDA_GB_SECOND[prices.to_lambda_architecture(platform.machine())]
        on_demand = environment.get("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand") == "on-demand"
        self._init_seconds = read_process_age() if on_demand else 0.0
        self._is_first_call = True

    def measure_call(self, trace: RequestContext, invocations: float = 1.0) -> "CallCost":
        """Measure a call; one that has only a share of an invocation is not rounded up to a whole ms."""
        total = time.perf_counter() - trace.start_time
        seconds = total + self._init_seconds if self._is_first_call else total
        cold, self._is_first_call = self._is_first_call or trace.cold, False
        milliseconds = prices.round_to_billed_ms(seconds)
        gb_seconds = self._gb_per_second * (milliseconds / prices.MS_PER_S if invocations == 1 else seconds)
        usd = prices.LAMBDA_REQUEST * invocations + gb_seconds * self._usd_per_gb_second
        return CallCost(total, cold, milliseconds, f"{gb_seconds:.6f}", f"{usd:.12f}")

    def start_headers(self, trace: RequestContext) -> dict[str, str]:
        """Build the headers of an answer that has only begun: all but its duration and cost."""
        so_far = time.perf_counter() - trace.start_time
        return {
            "server-timing": trace.format_server_timing(so_far),
            "x-pilotlight-cold": "true" if self._is_first_call or trace.cold else "false",
            "x-pilotlight-usd-per-second": f"{self._gb_per_second * self._usd_per_gb_second:.12f}",
            **identify_call(trace),
        }


class CallCost(Struct, frozen=True):
    """The duration of a call in seconds, and its cost; texts where header and log must be equal."""

    total: float
    cold: bool
    milliseconds: int  # billed
    gb_seconds: str
    usd: str

    def to_headers(self, trace: RequestContext) -> dict[str, str]:
        """Build the headers with duration, cost, version and correlation id."""
        return {
            "server-timing": trace.format_server_timing(self.total),
            "x-pilotlight-cold": "true" if self.cold else "false",
            "x-pilotlight-billed-ms": str(self.milliseconds),
            "x-pilotlight-gb-seconds": self.gb_seconds,
            "x-pilotlight-usd": self.usd,
            **identify_call(trace),
        }


def identify_call(trace: RequestContext) -> dict[str, str]:
    """Build the headers with the version that answers and the call's id, as far as they are known."""
    headers = {} if trace.version is None else {"x-pilotlight-version": str(trace.version)}
    if trace.correlation:
        headers[CORRELATION_HEADER] = headers[REQUEST_ID_HEADER] = trace.correlation
    return headers


def read_process_age() -> float:
    """Read the age of this process in seconds from /proc; return 0 on systems without it."""
    try:
        with open("/proc/self/stat") as stat, open("/proc/uptime") as uptime:  # noqa: PTH123 - 3 ms less than pathlib
            start_seconds = int(stat.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
            return max(0.0, float(uptime.read().split()[0]) - start_seconds)
    except OSError:
        return 0.0
