"""The ledger of a function: lines of its log that say what calls took, what they cost and who asked.

    {"_aws": ..., "function": "...", "model": "digits", "version": "3", "cold": "false", "route": "...", "status": 200,
     "tenant": "...", "calls": 1, "gb_seconds": 0.001728, "usd": 0.000000228793, "billed_ms": 1, "request": "...",
     "correlation_id": "...",
     "TotalMs": [0.171], "QueueMs": [4.000], "LoadMs": [0.004], "DecodeMs": [0.051], "InferMs": [0.093],
     "EncodeMs": [0.021], "Usd": [0.000000228793]}

CloudWatch makes metrics of the fields that `_aws` names (infra/decisions/0035), `pilotlight cost --from-logs` adds up
the rest. No field comes from a body, and a model stands here once it is open, so that no caller makes up metrics.

To write a line takes longer than to make one, so calls that come close behind each other share theirs. One that ended
in an error is written at once, and so is one behind a pause. What is held is lost if the environment is not used again.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from pilotlight.api.call_cost import CallCost
from pilotlight.api.request_context import RequestContext
from pilotlight.observability import emf

MAX_VALUES = 100  # values of a metric in one line, by the format's specification
CLIENT_ERROR, SERVER_ERROR = 400, 500
FUNCTION_DIMENSIONS, VERSION_DIMENSIONS = ["function"], ["function", "model", "version", "cold"]


def create_usage_log(hold_seconds: float) -> "UsageLog | None":
    """The ledger of an environment by its setting, none for less than 0."""
    return UsageLog(hold_seconds) if hold_seconds >= 0 else None


class UsageKey(NamedTuple):
    """What calls have in common that share a line."""

    route: str
    model: str
    version: int | None
    cold: bool
    status: int
    tenant: str
    stages: tuple[str, ...]  # as they were gone through, the queue first


CallRecord = tuple[CallCost, str, str, tuple[float, ...]]  # what it cost, its two ids, the seconds of its stages


class UsageLog:
    """Writes the lines of an environment, which has one call at a time; those of `hold_seconds` may share one."""

    def __init__(self, hold_seconds: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._hold_seconds = hold_seconds
        self._clock = clock
        self._last_write = -hold_seconds
        self._pending_count = 0
        self._calls: dict[tuple[Any, ...], list[CallRecord]] = {}  # by the fields of a Kind

    def record_http_call(self, event: Mapping[str, Any], trace: RequestContext, cost: CallCost, status: int) -> None:
        """A call through the gateway; what is no such call, as a start's golden request, is not noted."""
        context = event.get("requestContext")
        if context is not None:
            self.record_call(
                trace, cost, status, event.get("resource") or "", context.get("requestId") or "", get_tenant(context)
            )

    def record_call(
        self, trace: RequestContext, cost: CallCost, status: int, route: str, request_id: str, tenant: str
    ) -> None:
        """One call; `route` says by which way it came. Every warm call pays for this, so the rest waits for `flush`."""
        marks = trace.marks if trace.queue_seconds is None else [("queue", trace.queue_seconds), *trace.marks]
        stages, seconds = zip(*marks, strict=True) if marks else ((), ())
        key = route, trace.model, trace.version, cost.cold, status, tenant, stages
        call = cost, request_id, trace.correlation, seconds
        calls = self._calls.get(key)
        if calls is None:
            self._calls[key] = [call]
        else:
            calls.append(call)
        self._pending_count += 1
        now = self._clock()
        is_recent = 0 <= now - self._last_write < self._hold_seconds  # a snapshot may bring a clock that goes back
        if not is_recent or status >= CLIENT_ERROR or self._pending_count >= MAX_VALUES:
            self._last_write = now
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        pending, self._calls, self._pending_count = self._calls, {}, 0
        if pending:
            timestamp_ms = int(time.time() * 1e3)
            emf.write_line(
                "".join(format_line(UsageKey(*kind), calls, timestamp_ms) for kind, calls in pending.items())
            )


def format_line(key: UsageKey, calls: Sequence[CallRecord], timestamp_ms: int) -> str:
    """The line of some calls of one kind; `timestamp_ms` is in ms since 1970. Of a call alone it has the ids too."""
    costs = [call[0] for call in calls]
    fields = f'"calls":{len(calls)},"gb_seconds":{sum(float(charge.gb_seconds) for charge in costs):.6f}'
    fields += f',"usd":{sum(float(charge.usd) for charge in costs):.12f}'
    fields += f',"billed_ms":{sum(charge.milliseconds for charge in costs)}'
    if len(calls) == 1:
        fields += f',"request":{json.dumps(calls[0][1])},"correlation_id":{json.dumps(calls[0][2])}'
    columns = [[charge.total for charge in costs], *sum_by_stage(key.stages, [call[3] for call in calls])]
    usd = ",".join([charge.usd for charge in costs])
    return build_line_template(key) % (timestamp_ms, fields, *map(format_milliseconds, columns), usd)


def sum_by_stage(stages: tuple[str, ...], calls: Sequence[tuple[float, ...]]) -> Iterable[Sequence[float]]:
    """Seconds of each stage, call by call; those of a stage that was gone through twice, as by a canary, added up."""
    columns = zip(*calls, strict=True)
    if len(set(stages)) == len(stages):
        return columns
    sums: dict[str, list[float]] = {}
    for stage, column in zip(stages, columns, strict=True):
        total = sums.get(stage, [0.0] * len(calls))
        sums[stage] = [one + other for one, other in zip(total, column, strict=True)]
    return sums.values()


def format_milliseconds(seconds: Sequence[float]) -> str:
    """Values of a metric, in ms; by one format, which takes half the time of many."""
    return ("%.3f," * len(seconds))[:-1] % tuple([value * 1e3 for value in seconds])


@lru_cache(1024)
def build_line_template(key: UsageKey) -> str:
    """A line with places for its calls; few forms make up all the lines of an environment."""
    names = ["TotalMs", *dict.fromkeys(f"{stage.capitalize()}Ms" for stage in key.stages)]
    counters = get_error_counters(key.status)
    fixed: dict[str, object] = {"function": emf.FUNCTION}
    if key.version is not None:
        fixed |= {"model": key.model, "version": str(key.version), "cold": "true" if key.cold else "false"}
    fixed |= {"route": key.route, "status": key.status, "tenant": key.tenant, **dict.fromkeys(counters, 1)}
    metric_directives = build_directives(names, counters, has_model=key.version is not None)
    header: dict[str, object] = (
        {"_aws": {"Timestamp": 0, "CloudWatchMetrics": metric_directives}} if metric_directives else {"Timestamp": 0}
    )
    head = json.dumps(header | fixed, separators=(",", ":")).replace("%", "%%")
    numbers = "".join(f',"{name}":[%s]' for name in [*names, "Usd"])
    return head.replace('"Timestamp":0', '"Timestamp":%d', 1)[:-1] + ",%s" + numbers + "}\n"


def build_directives(names: list[str], error_counters: list[str], *, has_model: bool) -> list[emf.Directive]:
    """The function's time where it has inferred, its errors in any case; all of it by version, once there is one."""
    function_metrics = [*(["TotalMs"] if has_model else []), *error_counters]
    function_directives = [emf.build_directive(function_metrics, [FUNCTION_DIMENSIONS])] if function_metrics else []
    return (
        [*function_directives, emf.build_directive([*names, "Usd", *error_counters], [VERSION_DIMENSIONS])]
        if has_model
        else function_directives
    )


def get_error_counters(status: int) -> list[str]:
    """The counter of the status's class. A call that failed has a line of its own, so it counts once there."""
    return ["ServerErrors"] if status >= SERVER_ERROR else ["ClientErrors"] if status >= CLIENT_ERROR else []


def get_tenant(context: Mapping[str, Any]) -> str:
    """Who is billed: an authorizer's principal, else the API key by its id, else whose signature it was."""
    authorizer, identity = context.get("authorizer") or {}, context.get("identity") or {}
    principal = authorizer.get("principalId") or identity.get("apiKeyId") or identity.get("userArn")
    return str(principal) if principal else ""
