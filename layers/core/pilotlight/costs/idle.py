"""What a month of a stack costs in which nobody calls it, line by line, with AWS's always-free tier and without.

Storage is not in it: models cost what they weigh. What costs nothing while it is idle has no line: the API and its
usage plan, functions, log groups, rules, the topic, Step Functions, Batch without a job. A month has 730 hours.
"""

from collections.abc import Iterator

from msgspec import Struct

from pilotlight.costs.estimate import SECONDS_PER_MONTH
from pilotlight.costs.prices import MB_PER_GB, MS_PER_S, PRICE_LIST
from pilotlight.errors import InvalidInputError

POLLERS = 5  # connections that Lambda holds open to an idle queue; AWS News Blog, SQS as an event source, 2018
POLL_SECONDS = 20.0  # of a long poll
FREE_DASHBOARD_METRICS = 50  # above which a dashboard is not among the free ones
IMAGE_GB = 8.0  # of one training image; infra/training.yaml
LOG_BYTES = 1200  # of one run: Lambda's initStart, start and report


class IdleRun(Struct, frozen=True):
    """A scheduled run of a function that finds nothing to do, in a store with one model."""

    ms: float  # of a cold start up to the end of the run: AWS promises no warm environment
    lists: int  # requests of S3 that are billed as writes
    gets: int


# Requests are counted by tests/core/costs/test_idle_runs.py. Times are CPU of a new process up to the end of the run,
# on two cores, 2026-11-30: 294 to 365 ms and 219 to 303 ms, rounded up; the bucket's answers take some time more.
IDLE_RUNS = {
    "functions.promote.handler.handle": IdleRun(ms=400, lists=1, gets=2),
    "functions.drift.handler.handle": IdleRun(ms=400, lists=2, gets=1),
}


class ScheduledFunction(Struct, frozen=True, kw_only=True):
    """A function that a schedule starts."""

    handler: str
    every_s: float
    memory_mb: int
    architecture: str
    is_traced: bool

    @property
    def monthly_runs(self) -> float:
        """Runs in a month."""
        return SECONDS_PER_MONTH / self.every_s


class WarmFunction(Struct, frozen=True, kw_only=True):
    """A function of which environments, or the snapshot of one, are kept while nobody calls it."""

    memory_mb: int
    architecture: str
    environments: int = 0
    has_snapshot: bool = False


class StackInventory(Struct, frozen=True, kw_only=True):
    """What a stack has that costs something while it is idle."""

    alarm_metrics: int = 0  # an alarm costs for each metric that it reads
    composite_alarms: int = 0
    dashboard_metrics: tuple[int, ...] = ()  # of each dashboard: what it shows, a search for one
    polled_queues: int = 0
    repositories: int = 0  # of training images
    keys: tuple[str, ...] = ()  # ARNs of KMS
    scheduled: tuple[ScheduledFunction, ...] = ()
    warm: tuple[WarmFunction, ...] = ()
    log_days: int = 30


class IdleCostLine(Struct, frozen=True, kw_only=True):
    """One line of the bill: `units` a month, of which `free` are within the free tier."""

    what: str
    units: float
    usd_each: float
    usd: float
    usd_after_free_tier: float
    advice: str  # how to make it less


class IdleCost(Struct, frozen=True, kw_only=True):
    """The bill of a month."""

    lines: tuple[IdleCostLine, ...]
    usd: float
    usd_after_free_tier: float
    prices_as_of: str = PRICE_LIST.as_of
    region: str = PRICE_LIST.region


def estimate_idle_cost(inventory: StackInventory) -> IdleCost:
    """Price what a stack has; `InvalidInputError` for a scheduled function whose run is not known."""
    lines = tuple(line for line in _build_lines(inventory) if line.units)
    return IdleCost(
        lines=lines,
        usd=sum(line.usd for line in lines),
        usd_after_free_tier=sum(line.usd_after_free_tier for line in lines),
    )


def _build_lines(inventory: StackInventory) -> Iterator[IdleCostLine]:
    """Yield every line of the bill, those of nothing included."""
    is_full = bool(inventory.composite_alarms or inventory.dashboard_metrics)
    level = "MonitoringLevel=basic" if is_full else ""
    yield _price_line("CloudWatch, metrics of alarms", "alarm", inventory.alarm_metrics, level)
    yield _price_line("CloudWatch, composite alarms", "composite_alarm", inventory.composite_alarms, level)
    yield from _price_dashboards(inventory.dashboard_metrics, level)
    yield _price_line(
        "SQS, polls of idle queues",
        "sqs_request",
        inventory.polled_queues * POLLERS * SECONDS_PER_MONTH / POLL_SECONDS,
        "disable the mapping of a queue that is not used",
    )
    yield from _price_runs(inventory)
    yield _price_line("KMS, keys", "kms_key", len(inventory.keys), "no DataKey and SigningKey")
    yield from _price_warmth(inventory.warm)
    yield _price_line(
        "ECR, GB of a training image",
        "image_gb",
        inventory.repositories * IMAGE_GB,
        "no TrainingSubnets; delete old images",
    )


def _price_dashboards(metrics: tuple[int, ...], advice: str) -> Iterator[IdleCostLine]:
    """Price the dashboards; one that shows many metrics is not among an account's free ones."""
    large = sum(count > FREE_DASHBOARD_METRICS for count in metrics)
    yield _price_line("CloudWatch, dashboards", "dashboard", len(metrics) - large, advice)
    yield _price_line(
        f"CloudWatch, dashboards of over {FREE_DASHBOARD_METRICS} metrics",
        "dashboard",
        large,
        advice,
        has_free=False,
    )


def _price_runs(inventory: StackInventory) -> Iterator[IdleCostLine]:
    """Price the runs of all schedules together."""
    runs = [(function, _find_idle_run(function)) for function in inventory.scheduled]
    monthly = sum(function.monthly_runs for function, _ in runs)
    yield _price_line("Lambda, scheduled runs", "lambda_request", monthly, "")
    for architecture in ("x86_64", "arm64"):
        gb_s = sum(
            function.monthly_runs * function.memory_mb / MB_PER_GB * run.ms / MS_PER_S
            for function, run in runs
            if function.architecture == architecture
        )
        advice = "a smaller ModelMemory, Architecture=arm64" if architecture == "x86_64" else "a smaller ModelMemory"
        yield _price_line("Lambda, GB-s of scheduled runs", f"lambda_{architecture}", gb_s, advice)
    listings = sum(function.monthly_runs * run.lists for function, run in runs)
    yield _price_line("S3, listings of scheduled runs", "s3_list", listings, "")
    reads = sum(function.monthly_runs * run.gets for function, run in runs)
    yield _price_line("S3, reads of scheduled runs", "s3_get", reads, "fewer models; this is for one")
    traced = sum(function.monthly_runs for function, _ in runs if function.is_traced)
    yield _price_line("X-Ray, traces of scheduled runs", "trace", traced, "")
    yield _price_line("CloudWatch, GB of logs of scheduled runs", "logs_gb", monthly * LOG_BYTES / 1e9, "")


def _find_idle_run(function: ScheduledFunction) -> IdleRun:
    if function.handler not in IDLE_RUNS:
        raise InvalidInputError(
            f"What a run of {function.handler} costs is not known; measure one, and add it to IDLE_RUNS of {__name__}."
        )
    return IDLE_RUNS[function.handler]


def _price_warmth(warm: tuple[WarmFunction, ...]) -> Iterator[IdleCostLine]:
    """Price environments and snapshots that are kept."""
    for function in warm:
        gb_s = function.memory_mb / MB_PER_GB * SECONDS_PER_MONTH
        yield _price_line(
            "Lambda, GB-s of provisioned environments",
            f"lambda_provisioned_{function.architecture}",
            function.environments * gb_s,
            "ProvisionedConcurrency=0",
        )
        yield _price_line(
            "Lambda, GB-s of a snapshot", "lambda_snapshot", function.has_snapshot * gb_s, "SnapStart=None"
        )


def _price_line(what: str, name: str, units: float, advice: str, *, has_free: bool = True) -> IdleCostLine:
    """Price so many units a month, with the free tier and without."""
    price = PRICE_LIST.prices[name]
    billed = max(0.0, units - price.free) if has_free else units
    return IdleCostLine(
        what=what,
        units=units,
        usd_each=price.usd,
        usd=price.compute_cost(units),
        usd_after_free_tier=price.compute_cost(billed),
        advice=advice,
    )
