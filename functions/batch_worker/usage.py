"""What messages and files took and cost, by the same bill and ledger as calls over HTTP (pilotlight.api.usage_log).

A message has a line of the log, as a call has. A file may have millions of lines, so each part of it has one, for each
version that answered: `LinesAnswered`, `LinesFailed`, and its share of the price. Queues and S3 are not in it.
"""

import time
from collections.abc import Mapping

import msgspec

from functions.batch_worker.events import Message
from pilotlight.api.request_context import Bill, Trace
from pilotlight.api.usage_log import Ledger
from pilotlight.observability import emf

SETS = [["function"], ["function", "model", "version"]]


class Books:
    """Notes; without a ledger, nothing."""

    def __init__(self, bill: Bill, ledger: Ledger | None) -> None:
        self._bill = bill
        self._ledger = ledger

    def message(self, message: Message, trace: Trace, status: int, of: int) -> None:
        """One message of an invocation that has `of` of them."""
        if self._ledger is not None:
            trace.mark("store")
            charge = self._bill.charge(trace, 1 / of)
            self._ledger.note(trace, charge, status, "queue", message.key, message.tenant)

    def flush(self) -> None:
        """Write what is held: an invocation is over, and nobody waits for it."""
        if self._ledger is not None:
            self._ledger.flush()

    def part(
        self, trace: Trace, answered: Mapping[str, int], failed: int, *, tenant: str, correlation: str, first: bool
    ) -> None:
        """A part of a file: lines answered by `name:version`, and those that have no answer; the first pays the fee."""
        lines = sum(answered.values()) + failed
        if self._ledger is None or not lines:
            return
        charge = self._bill.charge(trace, 1.0 if first else 0.0)
        for version, count in [*answered.items(), *([("", failed)] if failed else [])]:
            share, names = count / lines, "LinesAnswered" if version else "LinesFailed"
            model, _, number = version.partition(":")
            told = emf.directive([names], SETS if version else SETS[:1])
            line = {
                "_aws": {"Timestamp": time.time_ns() // 1_000_000, "CloudWatchMetrics": [told]},
                "function": emf.FUNCTION,
                **({"model": model, "version": number} if version else {}),
                **{"route": "inbox", "status": 200, "tenant": tenant, "calls": count, names: count},
                "gb_seconds": round(float(charge.gb_seconds) * share, 6),
                "usd": round(float(charge.usd) * share, 12),
                "correlation_id": correlation,
            }
            emf.emit(msgspec.json.encode(line).decode() + "\n")
