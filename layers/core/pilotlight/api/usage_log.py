"""The usage log of a function: lines of its log with the duration, the cost and the caller of calls.

    {"_aws": ..., "function": "...", "model": "digits", "version": "3", "cold": "false", "route": "...", "status": 200,
     "tenant": "...", "calls": 1, "gb_seconds": 0.001728, "usd": 0.000000228793, "billed_ms": 1, "request": "...",
     "correlation_id": "...",
     "TotalMs": [0.171], "QueueMs": [4.000], "LoadMs": [0.004], "DecodeMs": [0.051], "InferMs": [0.093],
     "EncodeMs": [0.021], "Usd": [0.000000228793]}

CloudWatch makes metrics of the fields that `_aws` names (infra/decisions/0035), `pilotlight cost --from-logs` adds up
the rest. No field comes from a body, and a model is logged only once it is open, so that no caller makes up metrics.

Writing a line takes longer than building one, so calls in quick succession share a line. A call that ended in an error
is written at once, and so is one after a pause. Pending lines are lost if the environment is not used again.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from pilotlight.api.call_cost import CallCost
from pilotlight.api.http import get_identity, get_tenant
from pilotlight.api.request_context import RequestContext
from pilotlight.observability import emf

MAX_VALUES = 100  # values of a metric in one line, by the format's specification
CLIENT_ERROR, SERVER_ERROR = 400, 500
FUNCTION_DIMENSIONS, VERSION_DIMENSIONS = ["function"], ["function", "model", "version", "cold"]


def create_usage_log(hold_seconds: float) -> "UsageLog | None":
    """Create the usage log of an environment; None if `hold_seconds` is negative."""
    return UsageLog(hold_seconds) if hold_seconds >= 0 else None


class UsageKey(NamedTuple):
    """The fields that are equal in all calls of a line."""

    route: str
    model: str
    version: int | None
    cold: bool
    status: int
    tenant: str
    stages: tuple[str, ...]  # in their order, the queue first


CallRecord = tuple[CallCost, str, str, tuple[float, ...]]  # its cost, its two ids, the seconds of its stages


class UsageLog:
    """Writes the lines of an environment, which has one call at a time; calls close in time may share a line."""

    def __init__(self, hold_seconds: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._hold_seconds = hold_seconds
        self._clock = clock
        self._last_write = -hold_seconds
        self._pending_count = 0
        self._calls: dict[tuple[Any, ...], list[CallRecord]] = {}  # by the fields of a `UsageKey`

    def record_http_call(self, event: Mapping[str, Any], trace: RequestContext, cost: CallCost, status: int) -> None:
        """Record a call through the gateway; other calls, such as the golden request at start-up, are not recorded."""
        context = event.get("requestContext")
        if context is not None:
            self.record_call(
                trace,
                cost,
                status,
                event.get("resource") or "",
                context.get("requestId") or "",
                get_billed_name(context),
            )

    def record_call(
        self, trace: RequestContext, cost: CallCost, status: int, route: str, request_id: str, tenant: str
    ) -> None:
        """Record one call. Every warm call pays for this, so the rest is left to `flush`."""
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
        is_recent = 0 <= now - self._last_write < self._hold_seconds  # after a snapshot the clock may go back
        if not is_recent or status >= CLIENT_ERROR or self._pending_count >= MAX_VALUES:
            self._last_write = now
            self.flush()

    def flush(self) -> None:
        """Write the pending lines."""
        pending, self._calls, self._pending_count = self._calls, {}, 0
        if pending:
            timestamp_ms = int(time.time() * 1e3)
            emf.write_line(
                "".join(format_line(UsageKey(*kind), calls, timestamp_ms) for kind, calls in pending.items())
            )


def format_line(key: UsageKey, calls: Sequence[CallRecord], timestamp_ms: int) -> str:
    """Format one line for calls of one key; `timestamp_ms` is since 1970. A single call's line has its ids too."""
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
    """Sum the seconds of each stage by call; a stage may occur twice, as with a canary."""
    columns = zip(*calls, strict=True)
    if len(set(stages)) == len(stages):
        return columns
    sums: dict[str, list[float]] = {}
    for stage, column in zip(stages, columns, strict=True):
        total = sums.get(stage, [0.0] * len(calls))
        sums[stage] = [one + other for one, other in zip(total, column, strict=True)]
    return sums.values()


def format_milliseconds(seconds: Sequence[float]) -> str:
    """Format a metric's values in ms, with one format string, which takes half the time of one for each value."""
    return ("%.3f," * len(seconds))[:-1] % tuple([value * 1e3 for value in seconds])


@lru_cache(1024)
def build_line_template(key: UsageKey) -> str:
    """Build a line with placeholders for its calls; an environment needs few such templates."""
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
    """Build directives: the function's errors, its time if it ran a model; and all metrics by version, once known."""
    function_metrics = [*(["TotalMs"] if has_model else []), *error_counters]
    function_directives = [emf.build_directive(function_metrics, [FUNCTION_DIMENSIONS])] if function_metrics else []
    return (
        [*function_directives, emf.build_directive([*names, "Usd", *error_counters], [VERSION_DIMENSIONS])]
        if has_model
        else function_directives
    )


def get_error_counters(status: int) -> list[str]:
    """Return the counter of the status's class. A failed call has its own line, so it counts once there."""
    return ["ServerErrors"] if status >= SERVER_ERROR else ["ClientErrors"] if status >= CLIENT_ERROR else []


def get_billed_name(context: Mapping[str, Any]) -> str:
    """Return the name to bill: the tenant, else the authenticated caller, else the API key's id that was metered."""
    return get_tenant(context) or get_identity(context) or str((context.get("identity") or {}).get("apiKeyId") or "")
