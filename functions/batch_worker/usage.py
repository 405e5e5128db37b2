"""What messages and files took and cost, by the same bill and ledger as calls over HTTP (pilotlight.api.usage_log).

A message has a line of the log, as a call has. A file may have millions of lines, so each part of it has one, for each
version that answered: `LinesAnswered`, `LinesFailed`, and its share of the price. Queues and S3 are not in it.
"""

import time
from collections.abc import Mapping

import msgspec

from functions.batch_worker.events import InferenceMessage
from pilotlight.api.call_cost import CostMeter
from pilotlight.api.request_context import RequestContext
from pilotlight.api.usage_log import UsageLog
from pilotlight.observability import emf

DIMENSION_SETS = [["function"], ["function", "model", "version"]]


class BatchUsageLog:
    """Notes; without a ledger, nothing."""

    def __init__(self, cost_meter: CostMeter, usage_log: UsageLog | None) -> None:
        self._cost_meter = cost_meter
        self._usage_log = usage_log

    def log_message(self, message: InferenceMessage, trace: RequestContext, status: int, message_count: int) -> None:
        """One message of an invocation that has `message_count` of them."""
        if self._usage_log is not None:
            trace.mark_stage("store")
            charge = self._cost_meter.measure_call(trace, 1 / message_count)
            self._usage_log.record_call(trace, charge, status, "queue", message.key, message.tenant)

    def flush(self) -> None:
        """Write what is held: an invocation is over, and nobody waits for it."""
        if self._usage_log is not None:
            self._usage_log.flush()

    def log_part(
        self,
        trace: RequestContext,
        lines_by_version: Mapping[str, int],
        failed: int,
        *,
        tenant: str,
        correlation: str,
        is_first: bool,
    ) -> None:
        """A part of a file: lines answered by `name:version`, and those that have no answer; the first pays the fee."""
        lines = sum(lines_by_version.values()) + failed
        if self._usage_log is None or not lines:
            return
        charge = self._cost_meter.measure_call(trace, 1.0 if is_first else 0.0)
        for version, count in [*lines_by_version.items(), *([("", failed)] if failed else [])]:
            share, names = count / lines, "LinesAnswered" if version else "LinesFailed"
            model, _, number = version.partition(":")
            directive = emf.build_directive([names], DIMENSION_SETS if version else DIMENSION_SETS[:1])
            line = {
                "_aws": {"Timestamp": time.time_ns() // 1_000_000, "CloudWatchMetrics": [directive]},
                "function": emf.FUNCTION,
                **({"model": model, "version": number} if version else {}),
                **{"route": "inbox", "status": 200, "tenant": tenant, "calls": count, names: count},
                "gb_seconds": round(float(charge.gb_seconds) * share, 6),
                "usd": round(float(charge.usd) * share, 12),
                "correlation_id": correlation,
            }
            emf.write_line(msgspec.json.encode(line).decode() + "\n")
