"""What a month of calls costs, line by line, and from which load on something else would be cheaper.

    $ per million = 0.20 + edge + 1e6 x GB x P x (t_warm + cold x t_init)

with GB the memory over 1024 MB, P the price of a GB-second, t the billed seconds and cold the share of cold calls;
SnapStart adds a fee per restore and per GB kept. A month has 730 hours. It knows prices and loads, no AWS account.
"""

from collections.abc import Iterator
from math import ceil, inf
from typing import Literal

from msgspec import Struct, structs

from pilotlight.costs.prices import MB_PER_GB, MS_PER_S, PRICE_LIST, Machine, round_to_billed_ms
from pilotlight.errors import InvalidInputError

HOURS_PER_MONTH = 730.0  # of a month
SECONDS_PER_MONTH = HOURS_PER_MONTH * 3600
HTTP_BLOCK_KB = 512  # of a request that an HTTP API bills as one
SQS_REQUESTS_PER_MESSAGE = (
    1.2  # requests of SQS per message: one to send, a tenth each to receive and to delete ten at once
)
METRICS_PER_VERSION = (
    16  # metrics of a version that is asked all month, warm and cold: 6 times, price, one of the errors
)
METRICS_PER_STACK = 6  # metrics of the functions themselves
ALARM_METRICS = 26  # of template.yaml and infra/monitoring.yaml
FREE_DISK_MB = 512
SAGEMAKER_MB = range(1024, 6145, 1024)  # the sizes that SageMaker Serverless has

Edge = Literal["rest", "http", "url", "queue"]


class Workload(Struct, frozen=True, kw_only=True):
    """What is asked of a stack."""

    rps: float  # requests per second, the mean over the month
    ms: float  # of a warm call
    memory_mb: int
    cold_share: float = 0.0  # of the calls
    init_ms: float = 0.0  # that a cold call takes longer
    architecture: Literal["x86_64", "arm64"] = "x86_64"
    edge: Edge = "rest"
    kb: float = 1.0  # of a request
    snapstart: bool = False
    provisioned: int = 0  # environments that are kept started
    disk_mb: int = FREE_DISK_MB
    versions: int = 1  # asked in the month, and published versions that SnapStart keeps
    log_bytes: float = 0.0  # per request
    monitored: bool = False
    store_gb: float = 0.0
    training_hours: float = 0.0  # on one GPU machine
    free_tier: bool = False

    @property
    def monthly_requests(self) -> float:
        """In a month."""
        return self.rps * SECONDS_PER_MONTH

    @property
    def memory_gb(self) -> float:
        """The memory as Lambda bills it."""
        return self.memory_mb / MB_PER_GB


class CostLine(Struct, frozen=True):
    """One line of the bill, in USD a month; `grows` with the number of requests, or stands."""

    what: str
    usd: float
    grows: bool = True


class CostAlternative(Struct, frozen=True):
    """Another way to serve the same load. `break_even` is in requests a month, None where there is none."""

    name: str
    usd: float  # for this load, with as many machines as it needs
    machines: int
    busy: float  # share of their time, by the time of one call on a whole vCPU
    break_even: float | None
    why: str = ""


class CostEstimate(Struct, frozen=True):
    """A month."""

    load: Workload
    lines: tuple[CostLine, ...]
    usd: float
    usd_per_million: float
    alternatives: tuple[CostAlternative, ...]
    requests: float
    prices_as_of: str = PRICE_LIST.as_of
    region: str = PRICE_LIST.region


def estimate_cost(workload: Workload) -> CostEstimate:
    """The month of a load; `InvalidInputError` for one that cannot be."""
    check_workload(workload)
    lines = tuple(line for line in build_cost_lines(workload) if line.usd)
    list_price_lines = tuple(
        build_cost_lines(structs.replace(workload, free_tier=False))
    )  # what one request more would cost
    total = sum(line.usd for line in lines)
    others = tuple(price_alternatives(workload, list_price_lines))
    return CostEstimate(
        workload, lines, total, total / workload.monthly_requests * 1e6, others, workload.monthly_requests
    )


def check_workload(workload: Workload) -> None:
    """Refuse what no function is."""
    if not (0 < workload.rps < inf and 0 < workload.ms < inf):
        raise InvalidInputError(f"rps is {workload.rps:g} and ms {workload.ms:g}; both must be above 0.")
    if not 0 <= workload.cold_share <= 1:
        raise InvalidInputError(f"The cold share is {workload.cold_share:g}; it is a part of 1, such as 0.01.")
    if not 128 <= workload.memory_mb <= 10_240:
        raise InvalidInputError(f"The memory is {workload.memory_mb} MB; Lambda has 128 to 10240.")
    if workload.snapstart and workload.provisioned:
        raise InvalidInputError("Lambda takes SnapStart or provisioned concurrency, not both.")
    if workload.snapstart and workload.disk_mb > FREE_DISK_MB:
        raise InvalidInputError(
            f"SnapStart takes no disk above {FREE_DISK_MB} MB, and {workload.disk_mb} were asked for."
        )


def build_cost_lines(workload: Workload) -> Iterator[CostLine]:
    """Everything that could stand on the bill."""
    yield CostLine(
        "Lambda, requests",
        price_units("lambda_request", workload.monthly_requests - get_free_allowance(workload, "requests")),
    )
    yield from price_compute_time(workload)
    yield price_edge(workload)
    extra_disk_mb = workload.disk_mb - FREE_DISK_MB
    yield CostLine(
        "Lambda, disk",
        price_units(
            "disk", extra_disk_mb / MB_PER_GB * workload.monthly_requests * compute_mean_call_seconds(workload)
        ),
    )
    yield CostLine("CloudWatch, logs", price_units("logs_gb", workload.monthly_requests * workload.log_bytes / 1e9))
    if workload.monitored:
        monitoring_usd = (
            price_units("alarm", ALARM_METRICS) + price_units("composite_alarm", 1) + price_units("dashboard", 1)
        )
        metrics_usd = price_units("metric", METRICS_PER_STACK + METRICS_PER_VERSION * workload.versions)
        yield CostLine("CloudWatch, metrics, alarms, dashboard", metrics_usd + monitoring_usd, grows=False)
    yield CostLine("S3, models", price_units("s3_gb_month", workload.store_gb), grows=False)
    yield CostLine(
        "Training, GPU hours on demand", workload.training_hours * find_gpu_machine().usd_per_hour, grows=False
    )


def price_compute_time(workload: Workload) -> Iterator[CostLine]:
    """The functions' time, warm and cold, and what keeps them from being cold."""
    warm = workload.memory_gb * workload.monthly_requests * round_to_billed_ms(workload.ms / MS_PER_S) / MS_PER_S
    cold = workload.memory_gb * workload.monthly_requests * workload.cold_share * workload.init_ms / MS_PER_S
    if workload.provisioned:
        provisioned_usd = price_units(
            f"provisioned_{workload.architecture}", workload.memory_gb * workload.provisioned * SECONDS_PER_MONTH
        )
        yield CostLine(f"Lambda, {workload.provisioned} environments kept started", provisioned_usd, grows=False)
        yield CostLine("Lambda, time", price_units(f"provisioned_run_{workload.architecture}", warm))
        return
    name, free_gb_seconds = f"lambda_{workload.architecture}", get_free_allowance(workload, "gb_seconds")
    total_usd, warm_usd = price_units(name, warm + cold - free_gb_seconds), price_units(name, warm - free_gb_seconds)
    yield CostLine("Lambda, time", warm_usd)
    if not workload.snapstart:
        yield CostLine("Lambda, cold starts", total_usd - warm_usd)
        return
    restore_usd = price_units("snapstart_restore", workload.memory_gb * workload.monthly_requests * workload.cold_share)
    yield CostLine("Lambda, SnapStart's restores", restore_usd)
    cache_usd = price_units("snapstart_cache", workload.memory_gb * workload.versions * SECONDS_PER_MONTH)
    yield CostLine("Lambda, SnapStart's cache", cache_usd, grows=False)


def price_edge(workload: Workload) -> CostLine:
    """What stands in front of the function."""
    if workload.edge == "rest":
        return CostLine("API Gateway, REST", price_units("rest_api", workload.monthly_requests))
    if workload.edge == "http":
        return CostLine(
            "API Gateway, HTTP",
            price_units("http_api", workload.monthly_requests * max(1, ceil(workload.kb / HTTP_BLOCK_KB))),
        )
    if workload.edge == "queue":
        return CostLine(
            "SQS, and S3 for the answers",
            price_units("sqs_request", workload.monthly_requests * SQS_REQUESTS_PER_MESSAGE)
            + price_units("s3_put", workload.monthly_requests),
        )
    return CostLine("Function URL", 0.0)


def price_alternatives(workload: Workload, lines: tuple[CostLine, ...]) -> Iterator[CostAlternative]:
    """SageMaker Serverless, and machines by the hour."""
    usd_per_request = sum(line.usd for line in lines if line.grows) / workload.monthly_requests
    fixed_usd = sum(line.usd for line in lines if not line.grows and not line.what.startswith(("Training", "S3")))
    yield price_sagemaker_serverless(workload)
    for machine in PRICE_LIST.machines:
        yield price_rented_machine(workload, machine, usd_per_request, fixed_usd)


def price_sagemaker_serverless(workload: Workload) -> CostAlternative:
    """By the same milliseconds, in the next of its sizes; its fee for data is left out."""
    size = next((mb for mb in SAGEMAKER_MB if mb >= workload.memory_mb), None)
    if size is None:
        return CostAlternative("SageMaker Serverless", inf, 0, 0.0, None, "it ends at 6 GB")
    gb_seconds = size / MB_PER_GB * workload.monthly_requests * compute_mean_call_seconds(workload)
    return CostAlternative(
        f"SageMaker Serverless, {size // MB_PER_GB} GB",
        price_units("sagemaker_serverless", gb_seconds),
        0,
        0.0,
        None,
        "billed per call, as Lambda",
    )


def price_rented_machine(
    workload: Workload, machine: Machine, usd_per_request: float, fixed_usd: float
) -> CostAlternative:
    """As many machines as are busy with it; the number of requests from which one is cheaper than Lambda."""
    vcpus = workload.rps * workload.ms / MS_PER_S
    machine_count = max(1, ceil(vcpus / machine.vcpus))
    monthly_usd = machine.usd_per_hour * HOURS_PER_MONTH
    break_even = max(0.0, monthly_usd - fixed_usd) / usd_per_request
    max_requests = (
        machine.vcpus / (workload.ms / MS_PER_S) * SECONDS_PER_MONTH
    )  # requests that one answers in a month, never idle
    reason = "never: it is busy before" if break_even > max_requests and not machine.gpu else ""
    busy = vcpus / machine.vcpus / machine_count
    return CostAlternative(
        machine.name, monthly_usd * machine_count, machine_count, busy, None if reason else break_even, reason
    )


def compute_mean_call_seconds(workload: Workload) -> float:
    """Of the mean call."""
    return (round_to_billed_ms(workload.ms / MS_PER_S) + workload.cold_share * workload.init_ms) / MS_PER_S


def price_units(name: str, units: float) -> float:
    """What so many units of it cost in a month."""
    return PRICE_LIST.prices[name].compute_cost(max(0.0, units))


def get_free_allowance(workload: Workload, what: Literal["requests", "gb_seconds"]) -> float:
    """What Lambda gives for nothing; not with provisioned concurrency."""
    return float(getattr(PRICE_LIST.free_tier, what)) if workload.free_tier and not workload.provisioned else 0.0


def find_gpu_machine() -> Machine:
    """The machine that trains."""
    return next(machine for machine in PRICE_LIST.machines if machine.gpu)
