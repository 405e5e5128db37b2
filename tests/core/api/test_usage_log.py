"""The lines of calls: what they say, when they are written, and that nothing a caller sends gets into metrics."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from pilotlight.api.call_cost import CallCost, CostMeter
from pilotlight.api.request_context import RequestContext
from pilotlight.api.usage_log import UsageLog, create_usage_log, get_billed_name
from pilotlight.observability import emf
from tests.core.observability.test_emf import directives
from tests.fakes import Clock

STAGES = ("load", "decode", "infer", "encode")
CHARGE = CallCost(0.001, False, 1, "0.001728", "0.000000228793")
EVENT: dict[str, Any] = {
    "resource": "/v2/models/{model}/infer",
    "requestContext": {"requestId": "r-1", "identity": {"apiKeyId": "abcdefghij"}},
}


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """What was written since the last look."""
    written: list[str] = []
    monkeypatch.setattr(emf, "write_line", written.append)

    def taken() -> list[dict[str, Any]]:
        found = [json.loads(line) for text in written for line in text.splitlines()]
        written.clear()
        return found

    monkeypatch.setattr(emf, "FUNCTION", "Predict")
    return taken


def trace(version: int | None = 3, queue: float | None = None, stages: tuple[str, ...] = STAGES) -> RequestContext:
    made = RequestContext(queue_seconds=queue)
    made.correlation = "order-17"
    if version is not None:
        made.model, made.version = "digits", version
        for stage in stages:
            made.mark_stage(stage)
    return made


Lines = Callable[[], list[dict[str, Any]]]


def test_a_call_alone_is_told_with_its_ids(lines: Lines) -> None:
    UsageLog().record_http_call(EVENT, trace(queue=0.004), CHARGE, 200)
    (line,) = lines()
    stages = ["TotalMs", "QueueMs", "LoadMs", "DecodeMs", "InferMs", "EncodeMs"]
    assert directives(line) == [
        (["TotalMs"], ["function"]),
        ([*stages, "Usd"], ["function", "model", "version", "cold"]),
    ]
    assert {name: line[name] for name in ("function", "model", "version", "cold", "route", "status", "tenant")} == {
        "function": "Predict", "model": "digits", "version": "3", "cold": "false",
        "route": "/v2/models/{model}/infer", "status": 200, "tenant": "abcdefghij",
    }  # fmt: skip
    assert (line["request"], line["correlation_id"], line["calls"], line["billed_ms"]) == ("r-1", "order-17", 1, 1)
    assert (line["Usd"], line["usd"], line["gb_seconds"]) == ([0.000000228793], 0.000000228793, 0.001728)
    assert (line["TotalMs"], line["QueueMs"]) == ([1.0], [4.0])


def test_calls_close_together_share_a_line(lines: Lines) -> None:
    clock = Clock()
    notes = UsageLog(0.1, clock)
    for _ in range(3):
        notes.record_http_call(EVENT, trace(), CHARGE, 200)
        clock.tick(0.04)
    assert [line["calls"] for line in lines()] == [1]  # behind a pause at once
    notes.record_http_call(EVENT, trace(), CHARGE, 200)
    (line,) = lines()
    assert (line["calls"], line["Usd"], line["usd"]) == (3, [0.000000228793] * 3, 0.000000686379)
    assert len(line["InferMs"]) == line["billed_ms"] == 3
    assert "request" not in line


def test_whoever_differs_has_a_line_of_their_own(lines: Lines) -> None:
    notes = UsageLog(9, Clock())
    notes.flush()
    notes.record_http_call(EVENT, trace(), CHARGE, 200)
    lines()
    other = EVENT | {"requestContext": {"requestId": "r-2", "identity": {"apiKeyId": "klmnopqrst"}}}
    for event, version in [(EVENT, 3), (other, 3), (EVENT, 4), (other, 3)]:
        notes.record_http_call(event, trace(version), CHARGE, 200)
    assert lines() == []
    notes.flush()
    assert [(line["tenant"][0], line["version"], line["calls"]) for line in lines()] == [
        ("a", "3", 1), ("k", "3", 2), ("a", "4", 1),
    ]  # fmt: skip


def test_a_clock_that_goes_back_holds_nothing_up(lines: Lines) -> None:
    clock = Clock()
    clock.now = 1000.0
    notes = UsageLog(0.1, clock)
    notes.record_http_call(EVENT, trace(), CHARGE, 200)
    clock.now = 1.0  # as after the restore of a snapshot
    notes.record_http_call(EVENT, trace(), CHARGE, 200)
    assert [line["calls"] for line in lines()] == [1, 1]


def test_no_line_holds_more_values_than_the_format_takes(lines: Lines) -> None:
    notes = UsageLog(9, Clock())
    for _ in range(1 + 250):
        notes.record_http_call(EVENT, trace(), CHARGE, 200)
    found = lines()
    assert [line["calls"] for line in found] == [1, 100, 100]
    assert all(directives(line) for line in found)


@pytest.mark.parametrize(("status", "name"), [(400, "ClientErrors"), (404, "ClientErrors"), (503, "ServerErrors")])
def test_an_error_is_told_at_once_and_counted(status: int, name: str, lines: Lines) -> None:
    notes = UsageLog(9, Clock())
    notes.record_http_call(EVENT, trace(), CHARGE, 200)
    lines()
    notes.record_http_call(EVENT, trace(), CHARGE, 200)
    notes.record_http_call(EVENT, trace(stages=("load", "encode")), CHARGE, status)
    good, bad = lines()
    assert (good["calls"], bad["calls"], bad[name], bad["correlation_id"]) == (1, 1, 1, "order-17")
    assert ([name], ["function"]) in [([found[-1]], dimensions) for found, dimensions in directives(bad)]


def test_a_model_that_was_never_opened_makes_no_metric(lines: Lines) -> None:
    event = EVENT | {"pathParameters": {"model": "made-up-1"}, "path": "/v2/models/made-up-1/infer"}
    UsageLog().record_http_call(event, trace(version=None), CHARGE, 404)
    (line,) = lines()
    assert directives(line) == [(["ClientErrors"], ["function"])]
    assert "made-up-1" not in json.dumps(line)


def test_metadata_costs_but_is_no_inference(lines: Lines) -> None:
    UsageLog().record_http_call(EVENT | {"resource": "/v2"}, trace(version=None), CHARGE, 200)
    (line,) = lines()
    assert "_aws" not in line
    assert line["usd"] == 0.000000228793


def test_a_stage_that_was_gone_through_twice_is_one(lines: Lines) -> None:
    UsageLog().record_http_call(
        EVENT, trace(stages=("load", "decode", "infer", "decode", "infer", "encode")), CHARGE, 200
    )
    (line,) = lines()
    assert len(line["InferMs"]) == len(line["DecodeMs"]) == 1


def test_the_golden_request_of_a_start_is_no_call(lines: Lines) -> None:
    UsageLog().record_http_call({"resource": "/v2"}, trace(), CHARGE, 200)
    assert lines() == []


@pytest.mark.parametrize("text", ['a","usd":9,"b":"', "a\n{}", "ü%s%d\u2028"])
def test_what_an_authorizer_says_cannot_forge_a_line(text: str, lines: Lines) -> None:
    event = EVENT | {"requestContext": {"requestId": text, "authorizer": {"principalId": text}}}
    UsageLog().record_http_call(event, trace(), CHARGE, 200)
    (line,) = lines()
    assert (line["tenant"], line["request"], line["usd"]) == (text, text, 0.000000228793)


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ({"authorizer": {"principalId": "p"}, "identity": {"apiKeyId": "k", "userArn": "u"}}, "p"),
        ({"authorizer": {"principalId": "p", "tenant": "t"}, "identity": {}}, "t"),
        ({"identity": {"apiKeyId": "k", "userArn": "u"}}, "u"),
        ({"identity": {"apiKeyId": "k", "apiKey": "secret"}}, "k"),
        ({"identity": {"apiKeyId": None, "userArn": "u", "apiKey": "secret"}}, "u"),
        ({"identity": {"sourceIp": "1.2.3.4", "apiKey": "secret"}}, ""),
        ({"authorizer": None}, ""),
    ],
)
def test_billed_names(context: dict[str, Any], expected: str) -> None:
    assert get_billed_name(context) == expected


def test_less_than_nothing_is_no_ledger() -> None:
    assert create_usage_log(-1) is None
    assert create_usage_log(0) is not None


def test_header_and_line_say_the_same_price(lines: Lines) -> None:
    charge = CostMeter(1769, {}).measure_call(trace())
    UsageLog().record_http_call(EVENT, trace(), charge, 200)
    (line,) = lines()
    assert f"{line['usd']:.12f}" == charge.to_headers(trace())["x-pilotlight-usd"]
    assert charge.to_headers(trace())["x-correlation-id"] == "order-17"
