"""Sum what calls have cost, by tenant, model and version, over the lines that functions have logged.

It reads lines as a terminal shows them, as `aws logs tail` prints them, or in the document of `aws logs filter-log-
events`. It adds decimals, so that the sum equals that of the answers' headers to the last digit.
"""

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from msgspec import Struct

from pilotlight.errors import InvalidInputError

NO_VALUE = "-"  # for a call without a tenant or without a model


class UsageRow(Struct, frozen=True, order=True):
    """The calls of one tenant to one version."""

    tenant: str
    model: str
    version: str
    calls: int
    failed: int
    gb_seconds: Decimal
    usd: Decimal


class UsageReport(Struct, frozen=True):
    """All rows, the dearest first, and how many lines of calls could not be read."""

    accounts: tuple[UsageRow, ...]
    calls: int
    gb_seconds: Decimal
    usd: Decimal
    unread: int = 0


def build_usage_report(text: str) -> UsageReport:
    """Sum up a log; raise `InvalidInputError` if no line of it is of a call."""
    sums: dict[tuple[str, str, str], list[Any]] = {}
    unread = 0
    for record in parse_call_records(split_log_lines(text)):
        if record is None:
            unread += 1
            continue
        key = tuple(str(record.get(name) or NO_VALUE) for name in ("tenant", "model", "version"))
        calls = int(record["calls"])
        failed = calls if int(record["status"]) >= 400 else int(record.get("LinesFailed", 0))
        values = calls, failed, Decimal(record["gb_seconds"]), Decimal(record["usd"])
        previous = sums.setdefault((key[0], key[1], key[2]), [0, 0, Decimal(0), Decimal(0)])
        sums[key[0], key[1], key[2]] = [one + other for one, other in zip(previous, values, strict=True)]
    if not sums:
        raise InvalidInputError(
            "No line of this log is of a call; the functions' lines have a field usd (CallSeconds -1 stops them)."
        )
    accounts = sorted(
        (UsageRow(*key, *each) for key, each in sums.items()), key=lambda account: (-account.usd, account)
    )
    total = [sum(getattr(account, name) for account in accounts) for name in ("calls", "gb_seconds", "usd")]
    return UsageReport(tuple(accounts), int(total[0]), Decimal(total[1]), Decimal(total[2]), unread)


def split_log_lines(text: str) -> Iterable[str]:
    """Split a log into lines; return a document of events as one line."""
    if text.lstrip().startswith("{") and '"events"' in text:
        try:
            return [json.dumps(json.loads(text))]
        except ValueError:  # lines of JSON, one of which contains the name
            return text.splitlines()
    return text.splitlines()


def parse_call_records(lines: Iterable[str]) -> Iterator[dict[str, Any] | None]:
    """Yield the records of calls in the lines; yield None for one that is broken."""
    for line in lines:
        start = line.find("{")
        if start < 0 or "usd" not in line:
            continue
        try:
            content = json.loads(line[start:], parse_float=Decimal)
        except ValueError:
            yield None
            continue
        yield from extract_call_records(content)


def extract_call_records(content: Any) -> Iterator[dict[str, Any] | None]:  # noqa: ANN401 - any JSON
    """Yield the records of calls in a line: the line itself, an event's message, or those of a list of events."""
    if not isinstance(content, dict):
        return
    if isinstance(content.get("events"), list):
        yield from parse_call_records(
            str(event.get("message", "")) for event in content["events"] if isinstance(event, dict)
        )
    elif isinstance(content.get("message"), str):
        yield from parse_call_records([content["message"]])
    elif {"usd", "calls", "gb_seconds", "status"} <= content.keys():
        yield content
