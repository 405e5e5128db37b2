"""What a month of calls costs on this stack, line by line.

    $ per million = 0.20 + 3.50 + 1e6 x GB x P x (t_warm + cold x t_init)

with GB the memory over 1024 MB, P the price of a GB-second, t the billed seconds and cold the share of cold calls;
3.50 is the REST API's price. Logs, metrics and alarms come on top. A month has 730 hours. What a stack
costs without a call, and with other parameters, is in costs/idle.py.
"""

from collections.abc import Iterator
from math import inf
from typing import Literal

from msgspec import Struct

from pilotlight.costs.prices import MB_PER_GB, MS_PER_S, PRICE_LIST, round_to_billed_ms
from pilotlight.errors import InvalidInputError

SECONDS_PER_MONTH = 730.0 * 3600  # 730 hours
METRICS_PER_VERSION = 16  # of a version called all month, warm and cold: 6 times, the price, one of the errors
METRICS_PER_STACK = 6  # of the functions themselves
ALARM_METRICS = 4  # of template.yaml with its defaults
LOG_BYTES_PER_REQUEST = 1200  # of the function's line and the access log's; Lambda's own lines are not in it


class Workload(Struct, frozen=True, kw_only=True):
    """The calls to one version in a month, and the function that serves them."""

    rps: float  # requests per second, the mean over the month
    ms: float  # of a warm call
    memory_mb: int
    cold_share: float = 0.0  # of the calls
    init_ms: float = 0.0  # that a cold call takes longer
    architecture: Literal["x86_64", "arm64"] = "x86_64"

    @property
    def monthly_requests(self) -> float:
        """Requests in a month."""
        return self.rps * SECONDS_PER_MONTH

    @property
    def memory_gb(self) -> float:
        """The memory as Lambda bills it."""
        return self.memory_mb / MB_PER_GB


class CostLine(Struct, frozen=True):
    """One line of the bill, in USD a month; `grows` if it rises with the number of requests."""

    what: str
    usd: float
    grows: bool = True


class CostEstimate(Struct, frozen=True):
    """The bill of a month."""

    load: Workload
    lines: tuple[CostLine, ...]
    usd: float
    usd_per_million: float
    requests: float
    prices_as_of: str = PRICE_LIST.as_of
    region: str = PRICE_LIST.region


def estimate_cost(workload: Workload) -> CostEstimate:
    """Compute the month of a workload; raise `InvalidInputError` for an impossible one."""
    check_workload(workload)
    lines = tuple(line for line in build_cost_lines(workload) if line.usd)
    total = sum(line.usd for line in lines)
    return CostEstimate(workload, lines, total, total / workload.monthly_requests * 1e6, workload.monthly_requests)


def check_workload(workload: Workload) -> None:
    """Refuse numbers that no function can have."""
    if not (0 < workload.rps < inf and 0 < workload.ms < inf):
        raise InvalidInputError(f"rps is {workload.rps:g} and ms {workload.ms:g}; both must be above 0.")
    if not 0 <= workload.cold_share <= 1:
        raise InvalidInputError(f"The cold share is {workload.cold_share:g}; it is a part of 1, such as 0.01.")
    if not 128 <= workload.memory_mb <= 10_240:
        raise InvalidInputError(f"The memory is {workload.memory_mb} MB; Lambda has 128 to 10240.")


def build_cost_lines(workload: Workload) -> Iterator[CostLine]:
    """Yield every line of the bill, those of no cost included."""
    yield CostLine("Lambda, requests", price_units("lambda_request", workload.monthly_requests))
    yield from price_compute_time(workload)
    yield CostLine("API Gateway, REST", price_units("rest_api", workload.monthly_requests))
    log_gb = workload.monthly_requests * LOG_BYTES_PER_REQUEST / 1e9
    yield CostLine("CloudWatch, logs", price_units("logs_gb", log_gb))
    monitoring_usd = price_units("metric", METRICS_PER_STACK + METRICS_PER_VERSION) + price_units(
        "alarm", ALARM_METRICS
    )
    yield CostLine("CloudWatch, metrics and alarms", monitoring_usd, grows=False)


def price_compute_time(workload: Workload) -> Iterator[CostLine]:
    """Price the function's time, warm and cold: a tier of the price holds for both together."""
    warm = workload.memory_gb * workload.monthly_requests * round_to_billed_ms(workload.ms / MS_PER_S) / MS_PER_S
    cold = workload.memory_gb * workload.monthly_requests * workload.cold_share * workload.init_ms / MS_PER_S
    name = f"lambda_{workload.architecture}"
    warm_usd = price_units(name, warm)
    yield CostLine("Lambda, time", warm_usd)
    yield CostLine("Lambda, cold starts", price_units(name, warm + cold) - warm_usd)


def price_units(name: str, units: float) -> float:
    """Compute what so many units cost in a month."""
    return PRICE_LIST.prices[name].compute_cost(units)
