import json
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.local.gateway_errors import FAILED, TOO_LARGE, GatewayError
from pilotlight.local.proxy_events import HttpRequest, HttpResponse, ProxyEventEncoder, parse_handler_reply
from pilotlight.local.routes import RouteMatch
from pilotlight.local.template import ApiRoute, GatewayLimits, Stack

MATCH = RouteMatch(ApiRoute("ANY", "/v2/models/{model}", "F"), "/v2/models/a%20b", {"model": "a b"})


def event(
    *,
    method: str = "POST",
    query: str = "",
    headers: list[tuple[bytes, bytes]] | None = None,
    body: bytes = b"",
    binary: frozenset[str] = frozenset({"*/*"}),
    match: RouteMatch = MATCH,
    limits: GatewayLimits | None = None,
) -> dict[str, Any]:
    stack = Stack({}, (), "prod", {}, binary, Path())
    request = HttpRequest(
        method, query.encode(), headers or [], body, "10.0.0.1", "HTTP/1.1", "id-1", "Root=1", 1_428_582_896.0
    )
    made: dict[str, Any] = json.loads(ProxyEventEncoder(stack, limits or GatewayLimits()).encode(request, match))
    return made


def answer(document: object) -> HttpResponse:
    return parse_handler_reply(json.dumps(document).encode())


# --- events


def test_names_of_an_event_are_those_of_format_1() -> None:
    assert set(event()) == {
        "resource", "path", "httpMethod", "headers", "multiValueHeaders", "queryStringParameters",
        "multiValueQueryStringParameters", "pathParameters", "stageVariables", "requestContext", "body",
        "isBase64Encoded",
    }  # fmt: skip


def test_place_of_a_request() -> None:
    made = event()
    context = made["requestContext"]
    assert (made["resource"], made["path"]) == ("/v2/models/{model}", "/v2/models/a%20b")
    assert made["pathParameters"] == {"model": "a b"}
    assert (context["stage"], context["path"]) == ("prod", "/prod/v2/models/a%20b")
    assert (context["resourcePath"], context["httpMethod"]) == ("/v2/models/{model}", "POST")
    assert (context["requestTime"], context["requestTimeEpoch"]) == ("09/Apr/2015:12:34:56 +0000", 1_428_582_896_000)
    assert (context["accountId"], context["protocol"]) == ("123456789012", "HTTP/1.1")


def test_repeated_headers_keep_all_values_and_the_last_one() -> None:
    made = event(headers=[(b"x-a", b"1"), (b"x-a", b"2"), (b"user-agent", b"tests"), (b"host", b"h.example:80")])
    assert made["headers"]["x-a"] == "2"
    assert made["multiValueHeaders"]["x-a"] == ["1", "2"]
    assert made["requestContext"]["identity"]["userAgent"] == "tests"
    assert made["requestContext"]["domainName"] == "h.example:80"


def test_headers_that_the_gateway_adds() -> None:
    headers = event()["headers"]
    assert headers == {"x-forwarded-for": "10.0.0.1", "x-forwarded-proto": "http", "x-amzn-trace-id": "Root=1"}


def test_query() -> None:
    made = event(query="a=1&a=%C3%BC&b=&c+d=e%2Bf")
    assert made["queryStringParameters"] == {"a": "ü", "b": "", "c d": "e+f"}
    assert made["multiValueQueryStringParameters"] == {"a": ["1", "ü"], "b": [""], "c d": ["e+f"]}


def test_what_is_empty_is_null() -> None:
    made = event(match=RouteMatch(ApiRoute("GET", "/", "F"), "/", {}))
    names = ["queryStringParameters", "multiValueQueryStringParameters", "pathParameters", "stageVariables", "body"]
    assert [made[name] for name in names] == [None] * 5
    assert made["isBase64Encoded"] is False


@pytest.mark.parametrize(
    ("binary", "content_type", "is_binary"),
    [
        ({"*/*"}, b"", True),
        ({"image/png"}, b"image/png; q=1", True),
        ({"image/png"}, b"Image/PNG", True),
        ({"image/png"}, b"application/json", False),
        (set(), b"image/png", False),
    ],
)
def test_binary_media_types_decide_on_base64(binary: set[str], content_type: bytes, is_binary: bool) -> None:
    made = event(binary=frozenset(binary), headers=[(b"content-type", content_type)], body=b"body")
    assert (made["isBase64Encoded"], made["body"]) == (is_binary, "Ym9keQ==" if is_binary else "body")


def test_text_that_is_not_utf_8_is_replaced() -> None:
    assert event(binary=frozenset(), body=b"a\xff")["body"] == "a\ufffd"


def test_event_over_the_limit() -> None:
    size = len(json.dumps(event(), separators=(",", ":"))) - len("null")
    limits = GatewayLimits(event_bytes=size + len('"YWJj"'))
    assert event(body=b"abc", limits=GatewayLimits(event_bytes=limits.event_bytes))["body"] == "YWJj"
    with pytest.raises(GatewayError, match=f"Request Too Long: the event is .* takes {limits.event_bytes}") as caught:
        event(body=b"abcd", limits=limits)
    assert caught.value.kind is TOO_LARGE


@given(st.binary())
def test_binary_body_arrives_whole(body: bytes) -> None:
    made = event(body=body)
    assert b64decode(made["body"] or "") == body


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_body_arrives_whole(text: str) -> None:
    assert (event(binary=frozenset(), body=text.encode())["body"] or "") == text


@given(st.lists(st.tuples(st.text(min_size=1), st.text())))
def test_query_arrives_whole(pairs: list[tuple[str, str]]) -> None:
    pairs = [(name.encode(errors="replace").decode(), value.encode(errors="replace").decode()) for name, value in pairs]
    multiple = event(query=urlencode(pairs))["multiValueQueryStringParameters"] or {}
    assert multiple == {name: [value for other, value in pairs if other == name] for name, _ in pairs}


# --- answers


def test_smallest_answer() -> None:
    assert answer({"statusCode": 200}) == HttpResponse(
        200, [(b"content-type", b"application/json"), (b"content-length", b"0")], b""
    )


def test_headers_of_an_answer() -> None:
    made = answer({
        "statusCode": 200,
        "headers": {"Content-Type": "text/plain", "X-N": 1, "X-F": 1.5, "X-T": True, "X-M": "", "Content-Length": "9"},
        "multiValueHeaders": {"x-m": ["1", "2"], "Connection": ["close"]},
        "body": "ü",
    })  # fmt: skip
    assert made.headers == [
        (b"x-m", b"1"),
        (b"x-m", b"2"),
        (b"content-type", b"text/plain"),
        (b"x-n", b"1"),
        (b"x-f", b"1.5"),
        (b"x-t", b"true"),
        (b"content-length", b"2"),
    ]


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(status: int) -> None:
    assert answer({"statusCode": status, "body": "x"}) == HttpResponse(status, [], b"")


@pytest.mark.parametrize("absent", [{}, {"body": None}, {"isBase64Encoded": None}, {"headers": None, "cookies": []}])
def test_what_may_be_absent(absent: dict[str, object]) -> None:
    assert answer({"statusCode": 200, **absent}).body == b""


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (None, "Expected `object`, got `null`"),
        ([], "Expected `object`, got `array`"),
        ("text", "Expected `object`, got `str`"),
        ({}, "missing required field `statusCode`"),
        ({"statusCode": "200"}, r"Expected `int`, got `str` - at `\$.statusCode`"),
        ({"statusCode": True}, "Expected `int`, got `bool`"),
        ({"statusCode": 99}, "Expected `int` >= 200"),
        ({"statusCode": 600}, "Expected `int` <= 599"),
        ({"statusCode": 200, "body": {}}, "body is not a string"),
        ({"statusCode": 200, "body": 1, "isBase64Encoded": True}, "body is not base64"),
        ({"statusCode": 200, "body": "no!", "isBase64Encoded": True}, "body is not base64"),
        ({"statusCode": 200, "body": "ü", "isBase64Encoded": True}, "body is not base64"),
        ({"statusCode": 200, "isBase64Encoded": "yes"}, "isBase64Encoded"),
        ({"statusCode": 200, "headers": []}, r"at `\$.headers`"),
        ({"statusCode": 200, "headers": {"x": {}}}, r"at `\$.headers"),
        ({"statusCode": 200, "headers": {"x": None}}, r"at `\$.headers"),
        ({"statusCode": 200, "multiValueHeaders": {"x": "1"}}, r"at `\$.multiValueHeaders"),
        ({"statusCode": 200, "headers": {"x": "a\r\nset-cookie: b"}}, "which HTTP cannot carry"),
        ({"statusCode": 200, "headers": {"x y": "a"}}, "which HTTP cannot carry"),
        ({"statusCode": 200, "headers": {"": "a"}}, "which HTTP cannot carry"),
    ],
)
def test_malformed_answer_says_what_is_malformed(document: object, says: str) -> None:
    with pytest.raises(GatewayError, match=f"malformed Lambda proxy response: .*{says}") as caught:
        answer(document)
    assert caught.value.kind is FAILED


def test_answer_that_is_not_json() -> None:
    with pytest.raises(GatewayError, match="malformed Lambda proxy response: JSON is malformed"):
        parse_handler_reply(b"\x00")


@given(st.binary())
def test_base64_answer_leaves_whole(body: bytes) -> None:
    document = {"statusCode": 200, "body": b64encode(body).decode(), "isBase64Encoded": True}
    made = answer(document)
    assert made.body == body
    assert (b"content-length", str(len(body)).encode()) in made.headers


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_answer_leaves_whole(body: str) -> None:
    assert answer({"statusCode": 200, "body": body}).body == body.encode()
