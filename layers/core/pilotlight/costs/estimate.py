"""What a month of calls costs, line by line, and from which load on something else would be cheaper.

    $ per million = 0.20 + edge + 1e6 x GB x P x (t_warm + cold x t_init)

with GB the memory over 1024 MB, P the price of a GB-second, t the billed seconds and cold the share of cold calls;
SnapStart adds a fee per restore and per GB kept. A month has 730 hours. It knows prices and loads, no AWS account.
"""

from collections.abc import Iterator
from math import ceil, inf
from typing import Literal

from msgspec import Struct, structs

from pilotlight.costs.prices import LIST, MB_PER_GB, MS_PER_S, Machine, billed_ms
from pilotlight.errors import InvalidInputError

HOURS = 730.0  # of a month
SECONDS = HOURS * 3600
HTTP_BLOCK_KB = 512  # of a request that an HTTP API bills as one
QUEUED = 1.2  # requests of SQS per message: one to send, a tenth each to receive and to delete ten at once
PER_VERSION = 16  # metrics of a version that is asked all month, warm and cold: 6 times, price, one of the errors
PER_STACK = 6  # metrics of the functions themselves
ALARM_METRICS = 26  # of template.yaml and infra/monitoring.yaml
FREE_DISK_MB = 512
SAGEMAKER_MB = range(1024, 6145, 1024)  # the sizes that SageMaker Serverless has

Edge = Literal["rest", "http", "url", "queue"]


class Load(Struct, frozen=True, kw_only=True):
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
    def requests(self) -> float:
        """In a month."""
        return self.rps * SECONDS

    @property
    def gb(self) -> float:
        """The memory as Lambda bills it."""
        return self.memory_mb / MB_PER_GB


class Line(Struct, frozen=True):
    """One line of the bill, in USD a month; `grows` with the number of requests, or stands."""

    what: str
    usd: float
    grows: bool = True


class Alternative(Struct, frozen=True):
    """Another way to serve the same load. `break_even` is in requests a month, None where there is none."""

    name: str
    usd: float  # for this load, with as many machines as it needs
    machines: int
    busy: float  # share of their time, by the time of one call on a whole vCPU
    break_even: float | None
    why: str = ""


class Estimate(Struct, frozen=True):
    """A month."""

    load: Load
    lines: tuple[Line, ...]
    usd: float
    usd_per_million: float
    alternatives: tuple[Alternative, ...]
    requests: float
    prices_as_of: str = LIST.as_of
    region: str = LIST.region


def estimate(load: Load) -> Estimate:
    """The month of a load; `InvalidInputError` for one that cannot be."""
    check(load)
    lines = tuple(line for line in every_line(load) if line.usd)
    paid = tuple(every_line(structs.replace(load, free_tier=False)))  # what one request more would cost
    total = sum(line.usd for line in lines)
    others = tuple(alternatives(load, paid))
    return Estimate(load, lines, total, total / load.requests * 1e6, others, load.requests)


def check(load: Load) -> None:
    """Refuse what no function is."""
    if not (0 < load.rps < inf and 0 < load.ms < inf):
        raise InvalidInputError(f"rps is {load.rps:g} and ms {load.ms:g}; both must be above 0.")
    if not 0 <= load.cold_share <= 1:
        raise InvalidInputError(f"The cold share is {load.cold_share:g}; it is a part of 1, such as 0.01.")
    if not 128 <= load.memory_mb <= 10_240:
        raise InvalidInputError(f"The memory is {load.memory_mb} MB; Lambda has 128 to 10240.")
    if load.snapstart and load.provisioned:
        raise InvalidInputError("Lambda takes SnapStart or provisioned concurrency, not both.")
    if load.snapstart and load.disk_mb > FREE_DISK_MB:
        raise InvalidInputError(f"SnapStart takes no disk above {FREE_DISK_MB} MB, and {load.disk_mb} were asked for.")


def every_line(load: Load) -> Iterator[Line]:
    """Everything that could stand on the bill."""
    yield Line("Lambda, requests", price("lambda_request", load.requests - free(load, "requests")))
    yield from running(load)
    yield edge(load)
    kept = load.disk_mb - FREE_DISK_MB
    yield Line("Lambda, disk", price("disk", kept / MB_PER_GB * load.requests * seconds(load)))
    yield Line("CloudWatch, logs", price("logs_gb", load.requests * load.log_bytes / 1e9))
    if load.monitored:
        watched = price("alarm", ALARM_METRICS) + price("composite_alarm", 1) + price("dashboard", 1)
        metrics = price("metric", PER_STACK + PER_VERSION * load.versions)
        yield Line("CloudWatch, metrics, alarms, dashboard", metrics + watched, grows=False)
    yield Line("S3, models", price("s3_gb_month", load.store_gb), grows=False)
    yield Line("Training, GPU hours on demand", load.training_hours * gpu().usd_per_hour, grows=False)


def running(load: Load) -> Iterator[Line]:
    """The functions' time, warm and cold, and what keeps them from being cold."""
    warm = load.gb * load.requests * billed_ms(load.ms / MS_PER_S) / MS_PER_S
    cold = load.gb * load.requests * load.cold_share * load.init_ms / MS_PER_S
    if load.provisioned:
        kept = price(f"provisioned_{load.architecture}", load.gb * load.provisioned * SECONDS)
        yield Line(f"Lambda, {load.provisioned} environments kept started", kept, grows=False)
        yield Line("Lambda, time", price(f"provisioned_run_{load.architecture}", warm))
        return
    name, given = f"lambda_{load.architecture}", free(load, "gb_seconds")
    whole, billed = price(name, warm + cold - given), price(name, warm - given)
    yield Line("Lambda, time", billed)
    if not load.snapstart:
        yield Line("Lambda, cold starts", whole - billed)
        return
    restored = price("snapstart_restore", load.gb * load.requests * load.cold_share)
    yield Line("Lambda, SnapStart's restores", restored)
    cached = price("snapstart_cache", load.gb * load.versions * SECONDS)
    yield Line("Lambda, SnapStart's cache", cached, grows=False)


def edge(load: Load) -> Line:
    """What stands in front of the function."""
    if load.edge == "rest":
        return Line("API Gateway, REST", price("rest_api", load.requests))
    if load.edge == "http":
        return Line("API Gateway, HTTP", price("http_api", load.requests * max(1, ceil(load.kb / HTTP_BLOCK_KB))))
    if load.edge == "queue":
        return Line(
            "SQS, and S3 for the answers", price("sqs_request", load.requests * QUEUED) + price("s3_put", load.requests)
        )
    return Line("Function URL", 0.0)


def alternatives(load: Load, lines: tuple[Line, ...]) -> Iterator[Alternative]:
    """SageMaker Serverless, and machines by the hour."""
    grows = sum(line.usd for line in lines if line.grows) / load.requests
    stands = sum(line.usd for line in lines if not line.grows and not line.what.startswith(("Training", "S3")))
    yield serverless(load)
    for machine in LIST.machines:
        yield rented(load, machine, grows, stands)


def serverless(load: Load) -> Alternative:
    """By the same milliseconds, in the next of its sizes; its fee for data is left out."""
    size = next((mb for mb in SAGEMAKER_MB if mb >= load.memory_mb), None)
    if size is None:
        return Alternative("SageMaker Serverless", inf, 0, 0.0, None, "it ends at 6 GB")
    used = size / MB_PER_GB * load.requests * seconds(load)
    return Alternative(
        f"SageMaker Serverless, {size // MB_PER_GB} GB",
        price("sagemaker_serverless", used),
        0,
        0.0,
        None,
        "billed per call, as Lambda",
    )


def rented(load: Load, machine: Machine, grows: float, stands: float) -> Alternative:
    """As many machines as are busy with it; the number of requests from which one is cheaper than Lambda."""
    vcpus = load.rps * load.ms / MS_PER_S
    many = max(1, ceil(vcpus / machine.vcpus))
    month = machine.usd_per_hour * HOURS
    even = max(0.0, month - stands) / grows
    most = machine.vcpus / (load.ms / MS_PER_S) * SECONDS  # requests that one answers in a month, never idle
    why = "never: it is busy before" if even > most and not machine.gpu else ""
    busy = vcpus / machine.vcpus / many
    return Alternative(machine.name, month * many, many, busy, None if why else even, why)


def seconds(load: Load) -> float:
    """Of the mean call."""
    return (billed_ms(load.ms / MS_PER_S) + load.cold_share * load.init_ms) / MS_PER_S


def price(name: str, units: float) -> float:
    """What so many units of it cost in a month."""
    return LIST.prices[name].of(max(0.0, units))


def free(load: Load, what: Literal["requests", "gb_seconds"]) -> float:
    """What Lambda gives for nothing; not with provisioned concurrency."""
    return float(getattr(LIST.free_tier, what)) if load.free_tier and not load.provisioned else 0.0


def gpu() -> Machine:
    """The machine that trains."""
    return next(machine for machine in LIST.machines if machine.gpu)
