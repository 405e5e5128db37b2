"""Log the duration and cost of messages and files, as of calls over HTTP (pilotlight.api.usage_log).

A message has one line in the log, as a call has. A file may have millions of lines, so each of its parts has one log
line for each version: `LinesAnswered`, `LinesFailed`, and its share of the price. Costs of SQS and S3 are not included.
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
    """The usage log of the batch worker; without a `usage_log`, it writes nothing."""

    def __init__(self, cost_meter: CostMeter, usage_log: UsageLog | None) -> None:
        self._cost_meter = cost_meter
        self._usage_log = usage_log

    def log_message(self, message: InferenceMessage, trace: RequestContext, status: int, message_count: int) -> None:
        """Log one message of an invocation that has `message_count` of them."""
        if self._usage_log is not None:
            trace.mark_stage("store")
            charge = self._cost_meter.measure_call(trace, 1 / message_count)
            self._usage_log.record_call(trace, charge, status, "queue", message.key, message.sender)

    def flush(self) -> None:
        """Write the pending lines at the end of an invocation."""
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
        """Log a part of a file: answered lines by `name:version`, and failed ones; the first includes the fee."""
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
