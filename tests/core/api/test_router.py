import inspect
import json
import logging
import threading
from typing import Any

import pytest

from pilotlight import errors
from pilotlight.api import http
from pilotlight.api.call_cost import CostMeter
from pilotlight.api.http import Request, Response
from pilotlight.api.router import STATUS_CODES, Router, Routes, get_status_code
from pilotlight.observability import correlation

EVENT: dict[str, Any] = {"httpMethod": "GET", "resource": "/here", "path": "/here"}
ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.PilotlightError)]


def fine(request: Request) -> Response:
    return Response.json({"method": request.method})


def answer(event: dict[str, Any], error: Exception | None = None) -> tuple[int, Any]:
    def failing(_: Request) -> Response:
        assert error is not None
        raise error

    routes: Routes = {"/here": {"GET": fine, "POST": fine}, "/fails": {"GET": failing}}
    response = Router(routes)(EVENT | event, None)
    return response["statusCode"], json.loads(response["body"])


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_routes_answer(method: str) -> None:
    assert answer({"httpMethod": method}) == (200, {"method": method})


def test_wrong_verbs_name_the_right_ones() -> None:
    assert answer({"httpMethod": "PUT"}) == (405, {"error": "/here does not take PUT; use GET, POST."})


@pytest.mark.parametrize(("resource", "allowed"), [("/here", "GET, POST, HEAD"), ("/sent", "POST")])
def test_wrong_verbs_are_told_the_right_ones_by_header_too(resource: str, allowed: str) -> None:
    routes: Routes = {"/here": {"GET": fine, "POST": fine}, "/sent": {"POST": fine}}
    assert Router(routes)(EVENT | {"resource": resource, "httpMethod": "PUT"}, None)["headers"]["allow"] == allowed


def test_unknown_routes_name_the_known_ones() -> None:
    assert answer({"resource": "/there"}) == (404, {"error": "There is no route /there; there are /fails, /here."})


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_of_ours_has_a_status(kind: type[errors.PilotlightError]) -> None:
    error = kind.__new__(kind)  # some take more than a sentence
    Exception.__init__(error, "what to do")
    status = get_status_code(error)
    assert kind is errors.PilotlightError or status != 500
    if kind is not errors.ContextLengthError:
        assert answer({"resource": "/fails"}, kind("what to do")) == (status, {"error": "what to do"})


def test_statuses_are_those_of_the_protocol() -> None:
    assert set(STATUS_CODES.values()) == {400, 404, 405, 409, 412, 413, 415, 429, 501, 503, 504}


def test_a_bug_is_logged_by_its_place_without_what_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    status, body = answer({"resource": "/fails"}, ZeroDivisionError("secret"))
    assert (status, body) == (500, {"error": "The server failed on this request; its log says why."})
    assert "ZeroDivisionError" in caplog.text
    assert "test_router.py" in caplog.text
    assert "secret" not in caplog.text


def test_a_bad_event_is_answered() -> None:
    assert answer({"body": "%", "isBase64Encoded": True})[0] == 400


@pytest.mark.parametrize(
    "event",
    [
        {"version": "2.0", "rawPath": "/v2", "requestContext": {"http": {"method": "GET", "path": "/v2"}}},  # HTTP API
        {"httpMethod": "GET", "path": "/v2", "requestContext": {"elb": {"targetGroupArn": "arn"}}},  # load balancer
        {"Records": [{"eventSource": "aws:sqs"}]},
        {},
    ],
)
def test_the_event_of_another_gateway_is_told_from_a_bug(event: dict[str, Any]) -> None:
    answered = Router({"/here": {"GET": fine}})(event, None)
    assert answered["statusCode"] == 501
    assert "no request of a REST API" in json.loads(answered["body"])["error"]


@pytest.mark.parametrize("resource", ["/here", "/fails"])
def test_an_answer_has_its_callers_id_else_the_gateways(resource: str) -> None:
    def failing(_: Request) -> Response:
        raise errors.NotFoundError("x")

    router = Router({"/here": {"GET": fine}, "/fails": {"GET": failing}}, CostMeter(1769, {}))
    event = EVENT | {"resource": resource, "requestContext": {"requestId": "r-1"}}
    assert router(event, None)["headers"]["x-correlation-id"] == "r-1"
    named = event | {"headers": {"X-Correlation-Id": "order-17"}}
    assert router(named, None)["headers"]["x-correlation-id"] == "order-17"
    assert router(named, None)["headers"]["x-request-id"] == "order-17"
    broken = named | {"body": "%", "isBase64Encoded": True}
    assert router(broken, None)["headers"]["x-correlation-id"] == "r-1"


def test_what_is_logged_of_a_call_has_its_id(caplog: pytest.LogCaptureFixture) -> None:
    def failing(_: Request) -> Response:
        raise ZeroDivisionError

    kept = logging.getLogRecordFactory()
    correlation.install_log_record_factory()
    try:
        Router({"/here": {"GET": failing}})(EVENT | {"headers": {"x-request-id": "order-17"}}, None)
    finally:
        logging.setLogRecordFactory(kept)
        correlation.set_correlation_id("")
    ours = [record for record in caplog.records if record.thread == threading.get_ident()]
    assert [vars(record)["correlation_id"] for record in ours] == ["order-17"]


@pytest.mark.parametrize("response", [
    Response.json({"id": "x" * 1000}), Response(200, bytes(1000), {}, binary=True), Response.json(['"'] * 300),
])  # fmt: skip
def test_an_answer_that_lambda_does_not_send_is_an_error(response: Response, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_RESPONSE_BYTES", 1000)
    sent = Router({"/here": {"GET": lambda _: response}})(EVENT, None)
    assert (sent["statusCode"], sent["isBase64Encoded"]) == (413, False)
    assert "more than Lambda sends; ask for less at once" in json.loads(sent["body"])["error"]


@pytest.mark.parametrize("quoted", ["x", "ü", "\U0001f525", "\x00", "\\"])
def test_an_error_does_not_send_back_all_that_it_quotes(quoted: str) -> None:
    name = quoted * 500_000
    status, body = answer({"resource": "/fails"}, errors.InvalidInputError(f"{name!r} is no input; send another."))
    assert status == 400
    assert len(body["error"].encode()) < 1_500
    assert body["error"].startswith(repr(name)[:150])
    assert body["error"].endswith("' is no input; send another.")
