"""How a request is read and an error is worded, with a function that answers by itself."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pilotlight.local.pool import EnvironmentPool, OnFree
from pilotlight.local.proxy_events import HttpResponse
from pilotlight.local.rest_api import RestApi
from pilotlight.local.runtime_api import Invocation
from pilotlight.local.template import ApiRoute, FunctionSpec, GatewayLimits, GatewayResponse, Stack
from tests.core.local.fakes import FakeEnvironment

FUNCTION = FunctionSpec("F", "handlers.handle", 128, 3, {}, ())
LIMITS = GatewayLimits(body_bytes=10)
WHOLE = {"type": "http.request", "body": b"", "more_body": False}


class Echo(FakeEnvironment):
    """Answers at once with the event's body, or fails as it is told."""

    def __init__(self, on_free: OnFree, failure: str) -> None:
        super().__init__(on_free)
        self._failure = failure
        asyncio.get_running_loop().call_soon(self.become_free)

    def take(self, given: Invocation) -> None:
        super().take(given)
        if self._failure:
            self.end(self._failure)
        else:
            given.finish(json.dumps({"statusCode": 200, "body": json.loads(given.event)["body"]}).encode())


def ask(
    path: str = "/x",
    *,
    messages: Sequence[Mapping[str, Any]] = (WHOLE,),
    responses: Mapping[str, GatewayResponse] | None = None,
    failure: str = "",
) -> HttpResponse:
    """What the API sends for one request that arrives in these messages."""
    stack = Stack({"F": FUNCTION}, (ApiRoute("POST", "/x", "F"),), "prod", responses or {}, frozenset(), Path())
    sent: list[dict[str, Any]] = []
    left = [dict(message) for message in messages]

    async def receive() -> dict[str, Any]:
        return left.pop(0) if left else await asyncio.get_running_loop().create_future()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def run() -> None:
        pool = EnvironmentPool(lambda on_free: Echo(on_free, failure), 1, 300.0, LIMITS)
        pool.start()
        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "http_version": "1.1",
        }  # fmt: skip
        await RestApi(stack, {"F": pool}, LIMITS)(scope, receive, send)
        await pool.stop()

    asyncio.run(run())
    start, body = sent
    return HttpResponse(start["status"], start["headers"], body["body"])


def part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_body_may_come_in_parts() -> None:
    answer = ask(messages=[part(b"ab", more=True), part(b"", more=True), part(b"cd", more=False)])
    assert (answer.status, answer.body) == (200, b"abcd")


def test_every_answer_has_an_id_and_a_length() -> None:
    for path in ("/x", "/y"):
        headers = dict(ask(path).headers)
        assert len(headers[b"x-amzn-requestid"]) == 36
        assert b"content-length" in headers


def test_body_at_the_limit_and_over_it() -> None:
    assert ask(messages=[part(b"12345", more=True), part(b"67890", more=False)]).status == 200
    answer = ask(messages=[part(b"12345", more=True), part(b"678901", more=True)])
    assert answer.status == 413
    assert json.loads(answer.body)["message"].startswith("Request Too Long: the body is larger than the 10 bytes")


def test_client_that_leaves_before_its_body_is_there_reaches_no_function() -> None:
    assert ask(messages=[part(b"ab", more=True), {"type": "http.disconnect"}], failure="was asked").status == 499


def test_errors_are_worded_as_by_aws_where_the_template_is_silent() -> None:
    answer = ask("/y")
    assert (answer.status, answer.body) == (403, b'{"message":"Missing Authentication Token"}')
    assert dict(answer.headers)[b"x-amzn-errortype"] == b"MissingAuthenticationTokenException"
    assert dict(answer.headers)[b"content-type"] == b"application/json"


@pytest.mark.parametrize(
    ("responses", "status", "body"),
    [
        (
            {"DEFAULT_4XX": GatewayResponse(None, "text: $context.error.message")},
            403,
            "text: Missing Authentication Token",
        ),
        ({"DEFAULT_4XX": GatewayResponse(418, None)}, 418, '{"message":"Missing Authentication Token"}'),
        (
            {
                "DEFAULT_4XX": GatewayResponse(418, "[$context.error.messageString]"),
                "MISSING_AUTHENTICATION_TOKEN": GatewayResponse(404, None),
            },
            404,
            '["Missing Authentication Token"]',
        ),
        (
            {
                "DEFAULT_4XX": GatewayResponse(418, "default"),
                "MISSING_AUTHENTICATION_TOKEN": GatewayResponse(None, "own"),
            },
            418,
            "own",
        ),
        ({"DEFAULT_5XX": GatewayResponse(599, "other")}, 403, '{"message":"Missing Authentication Token"}'),
    ],
)
def test_errors_are_worded_by_the_template(responses: dict[str, GatewayResponse], status: int, body: str) -> None:
    answer = ask("/y", responses=responses)
    assert (answer.status, answer.body.decode()) == (status, body)
    assert (b"content-length", b"%d" % len(body)) in answer.headers


def test_text_of_an_error_is_quoted() -> None:
    text = 'said "no"\nand left'
    answer = ask(failure=text)
    assert answer.status == 502
    assert json.loads(answer.body) == {"message": f"Internal server error: F {text}."}
