"""What calls have cost, from logs in every form in which people have them."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.costs.usage_report import build_usage_report
from pilotlight.errors import InvalidInputError


def line(usd: str = "0.000000228793", **more: Any) -> str:  # noqa: ANN401 - fields of a line
    told = {"_aws": {}, "model": "digits", "version": "1", "tenant": "a", "status": 200, "calls": 1} | more
    return json.dumps(told)[:-1] + f', "gb_seconds": 0.001728, "usd": {usd}}}'


def test_sums_by_tenant_model_and_version() -> None:
    log = "\n".join([
        line(), line(tenant="b", calls=3, usd="0.000001"), line(), line(version="2"),
        line(status=400), line(model=None, version=None, tenant="", status=404),
    ])  # fmt: skip
    found = build_usage_report(log)
    assert [(each.tenant, each.model, each.version, each.calls, each.failed) for each in found.accounts] == [
        ("b", "digits", "1", 3, 0),
        ("a", "digits", "1", 3, 1),
        ("-", "-", "-", 1, 1),
        ("a", "digits", "2", 1, 0),
    ]
    assert found.usd == Decimal("0.000000228793") * 5 + Decimal("0.000001")
    assert (found.calls, found.unread) == (8, 0)


def test_a_tail_of_the_log_has_something_before_the_line() -> None:
    found = build_usage_report(f'2026-11-25T10:00:00 {line()}\nSTART RequestId: x\n{{"level": "INFO"}}\nno usd here\n')
    assert (found.calls, found.unread) == (1, 0)


def test_a_document_of_events_is_read_however_it_is_laid_out() -> None:
    events = {"events": [{"message": line() + "\n", "timestamp": 1}, {"message": "START"}, {"message": line()}]}
    assert build_usage_report(json.dumps(events)).calls == build_usage_report(json.dumps(events, indent=4)).calls == 2
    assert build_usage_report(json.dumps({"message": line()})).calls == 1


def test_lines_that_were_cut_off_are_told_and_not_guessed() -> None:
    found = build_usage_report(f"{line()}\n{line()[:-3]}\n")
    assert (found.calls, found.unread) == (1, 1)


@pytest.mark.parametrize("log", ["", "START\n", '{"usd": 1}', '[{"usd": 1}]', '{"events": []}', '"events" {'])
def test_a_log_without_calls_is_refused(log: str) -> None:
    with pytest.raises(InvalidInputError, match="No line of this log is of a call"):
        build_usage_report(log)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    assert build_usage_report(f"{text}\n{line()}\n{text}").calls >= 1
