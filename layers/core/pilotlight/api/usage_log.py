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

from pilotlight.api.request_context import Charge, Trace
from pilotlight.observability import emf

MOST = 100  # values of a metric in one line, by the format's specification
CLIENT_ERROR, SERVER_ERROR = 400, 500
PER_FUNCTION, PER_VERSION = ["function"], ["function", "model", "version", "cold"]


def ledger(seconds: float) -> "Ledger | None":
    """The ledger of an environment by its setting, none for less than 0."""
    return Ledger(seconds) if seconds >= 0 else None


class Kind(NamedTuple):
    """What calls have in common that share a line."""

    route: str
    model: str
    version: int | None
    cold: bool
    status: int
    tenant: str
    stages: tuple[str, ...]  # as they were gone through, the queue first


Call = tuple[Charge, str, str, tuple[float, ...]]  # what it cost, its two ids, the seconds of its stages


class Ledger:
    """Writes the lines of an environment, which has one call at a time; those of `hold` seconds may share one."""

    def __init__(self, hold: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._hold = hold
        self._clock = clock
        self._written = -hold
        self._held = 0
        self._calls: dict[tuple[Any, ...], list[Call]] = {}  # by the fields of a Kind

    def call(self, event: Mapping[str, Any], trace: Trace, charge: Charge, status: int) -> None:
        """A call through the gateway; what is no such call, as a start's golden request, is not noted."""
        context = event.get("requestContext")
        if context is not None:
            self.note(
                trace, charge, status, event.get("resource") or "", context.get("requestId") or "", tenant(context)
            )

    def note(self, trace: Trace, charge: Charge, status: int, route: str, request: str, tenant: str) -> None:
        """One call; `route` says by which way it came. Every warm call pays for this, so the rest waits for `flush`."""
        marks = trace.marks if trace.queue is None else [("queue", trace.queue), *trace.marks]
        stages, seconds = zip(*marks, strict=True) if marks else ((), ())
        kind = route, trace.model, trace.version, charge.cold, status, tenant, stages
        call = charge, request, trace.correlation, seconds
        calls = self._calls.get(kind)
        if calls is None:
            self._calls[kind] = [call]
        else:
            calls.append(call)
        self._held += 1
        now = self._clock()
        fresh = 0 <= now - self._written < self._hold  # a snapshot may bring a clock that goes back
        if not fresh or status >= CLIENT_ERROR or self._held >= MOST:
            self._written = now
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        held, self._calls, self._held = self._calls, {}, 0
        if held:
            at = int(time.time() * 1e3)
            emf.emit("".join(line(Kind(*kind), calls, at) for kind, calls in held.items()))


def line(kind: Kind, calls: Sequence[Call], at: int) -> str:
    """The line of some calls of one kind; `at` is in ms since 1970. Of a call alone it has the ids too."""
    charges = [call[0] for call in calls]
    told = f'"calls":{len(calls)},"gb_seconds":{sum(float(charge.gb_seconds) for charge in charges):.6f}'
    told += f',"usd":{sum(float(charge.usd) for charge in charges):.12f}'
    told += f',"billed_ms":{sum(charge.milliseconds for charge in charges)}'
    if len(calls) == 1:
        told += f',"request":{json.dumps(calls[0][1])},"correlation_id":{json.dumps(calls[0][2])}'
    columns = [[charge.total for charge in charges], *by_stage(kind.stages, [call[3] for call in calls])]
    usd = ",".join([charge.usd for charge in charges])
    return form(kind) % (at, told, *map(listed, columns), usd)


def by_stage(stages: tuple[str, ...], calls: Sequence[tuple[float, ...]]) -> Iterable[Sequence[float]]:
    """Seconds of each stage, call by call; those of a stage that was gone through twice, as by a canary, added up."""
    columns = zip(*calls, strict=True)
    if len(set(stages)) == len(stages):
        return columns
    sums: dict[str, list[float]] = {}
    for stage, column in zip(stages, columns, strict=True):
        known = sums.get(stage, [0.0] * len(calls))
        sums[stage] = [one + other for one, other in zip(known, column, strict=True)]
    return sums.values()


def listed(seconds: Sequence[float]) -> str:
    """Values of a metric, in ms; by one format, which takes half the time of many."""
    return ("%.3f," * len(seconds))[:-1] % tuple([value * 1e3 for value in seconds])


@lru_cache(1024)
def form(kind: Kind) -> str:
    """A line with places for its calls; few forms make up all the lines of an environment."""
    names = ["TotalMs", *dict.fromkeys(f"{stage.capitalize()}Ms" for stage in kind.stages)]
    failed = errors(kind.status)
    fixed: dict[str, object] = {"function": emf.FUNCTION}
    if kind.version is not None:
        fixed |= {"model": kind.model, "version": str(kind.version), "cold": "true" if kind.cold else "false"}
    fixed |= {"route": kind.route, "status": kind.status, "tenant": kind.tenant, **dict.fromkeys(failed, 1)}
    asked = directives(names, failed, of_model=kind.version is not None)
    told: dict[str, object] = {"_aws": {"Timestamp": 0, "CloudWatchMetrics": asked}} if asked else {"Timestamp": 0}
    head = json.dumps(told | fixed, separators=(",", ":")).replace("%", "%%")
    numbers = "".join(f',"{name}":[%s]' for name in [*names, "Usd"])
    return head.replace('"Timestamp":0', '"Timestamp":%d', 1)[:-1] + ",%s" + numbers + "}\n"


def directives(names: list[str], failed: list[str], *, of_model: bool) -> list[emf.Directive]:
    """The function's time where it has inferred, its errors in any case; all of it by version, once there is one."""
    whole = [*(["TotalMs"] if of_model else []), *failed]
    found = [emf.directive(whole, [PER_FUNCTION])] if whole else []
    return [*found, emf.directive([*names, "Usd", *failed], [PER_VERSION])] if of_model else found


def errors(status: int) -> list[str]:
    """The counter of the status's class. A call that failed has a line of its own, so it counts once there."""
    return ["ServerErrors"] if status >= SERVER_ERROR else ["ClientErrors"] if status >= CLIENT_ERROR else []


def tenant(context: Mapping[str, Any]) -> str:
    """Who is billed: an authorizer's principal, else the API key by its id, else whose signature it was."""
    authorizer, identity = context.get("authorizer") or {}, context.get("identity") or {}
    found = authorizer.get("principalId") or identity.get("apiKeyId") or identity.get("userArn")
    return str(found) if found else ""
