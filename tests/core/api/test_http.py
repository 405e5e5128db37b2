import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.api import http
from pilotlight.api.http import (
    Request,
    Response,
    count_sent_bytes,
    get_caller,
    get_identity,
    get_tenant,
    is_sendable,
)
from pilotlight.errors import InvalidInputError

EVENT: dict[str, Any] = {"httpMethod": "POST", "resource": "/v2", "headers": None, "pathParameters": None, "body": None}


@given(st.binary())
def test_bodies_arrive_as_sent(body: bytes) -> None:
    event = EVENT | {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
    assert Request.from_event(event).body == body


@given(st.text())
def test_plain_bodies_arrive_too(body: str) -> None:
    assert Request.from_event(EVENT | {"body": body, "isBase64Encoded": False}).body == body.encode()


def test_a_bare_event_is_read() -> None:
    request = Request.from_event(EVENT)
    assert (request.body, request.headers, request.parameters, request.id) == (b"", {}, {}, "")


def test_header_names_are_lowered() -> None:
    assert Request.from_event(EVENT | {"headers": {"X-Api-Key": "K"}}).headers == {"x-api-key": "K"}


def test_every_line_of_content_encodings_counts() -> None:
    lines = {
        "headers": {"content-encoding": "identity"},
        "multiValueHeaders": {"Content-Encoding": ["gzip", "identity"]},
    }
    assert Request.from_event(EVENT | lines).headers == {"content-encoding": "gzip, identity"}
    assert Request.from_event(EVENT | {"headers": {"Content-Encoding": "gzip"}}).headers == {"content-encoding": "gzip"}


def test_a_body_that_is_not_base64_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="base64"):
        Request.from_event(EVENT | {"body": "{}", "isBase64Encoded": True})


@given(st.binary())
def test_binary_answers_are_base64(body: bytes) -> None:
    event = Response(200, body, binary=True).to_event()
    assert event["isBase64Encoded"] is True
    assert base64.b64decode(event["body"]) == body


def test_who_has_no_name_acts_under_one_all_the_same() -> None:
    assert Request.from_event(EVENT).caller == ""
    assert Request.from_event(EVENT).actor == "an unnamed caller"
    known = Request.from_event(EVENT | {"requestContext": {"identity": {"apiKeyId": "k"}}})
    assert known.actor == known.caller == "k"


def test_json_answers_are_text() -> None:
    event = Response.json({"x": [1, float("nan")]}, 201, server="y").to_event()
    assert event == {
        "statusCode": 201,
        "headers": {"content-type": "application/json", "server": "y"},
        "body": '{"x":[1,null]}',
        "isBase64Encoded": False,
    }


@pytest.mark.parametrize(
    ("context", "name"),
    [
        ({"identity": {"userArn": "arn:aws:iam::1:ann", "apiKeyId": "k"}}, "arn:aws:iam::1:ann"),
        ({"identity": {"apiKeyId": "k"}, "authorizer": {"claims": {"sub": "1", "email": "a@b.org"}}}, "a@b.org"),
        ({"authorizer": {"claims": {"sub": "1-2"}}}, "1-2"),
        ({"authorizer": {"principalId": "service"}, "identity": {"sourceIp": "192.0.2.7"}}, "service"),
        ({"authorizer": {"principalId": "abcdefghijkl", "key": "ci", "tenant": "acme"}}, "ci"),
        ({"authorizer": {"principalId": "subject", "key": "", "tenant": "subject"}}, "subject"),
        ({"identity": {"apiKeyId": "k", "sourceIp": "192.0.2.7"}}, "k"),
        ({"identity": None, "authorizer": None}, ""),
    ],
)  # fmt: skip
def test_the_caller_is_named_as_well_as_the_gateway_can(context: dict[str, Any], name: str) -> None:
    assert get_caller(context) == name


@pytest.mark.parametrize(
    ("context", "tenant", "identity"),
    [
        ({"authorizer": {"principalId": "p", "tenant": "t"}, "identity": {"userArn": "u"}}, "t", "p"),
        ({"identity": {"userArn": "u", "apiKeyId": "k", "sourceIp": "1.2.3.4"}}, "", "u"),
        ({"identity": {"apiKeyId": "k", "sourceIp": "1.2.3.4"}}, "", ""),
        ({"authorizer": None, "identity": None}, "", ""),
        ({}, "", ""),
    ],
)
def test_only_authenticated_callers_have_an_identity(context: dict[str, Any], tenant: str, identity: str) -> None:
    assert (get_tenant(context), get_identity(context)) == (tenant, identity)


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\\n\0\x1f\x7f\u2028\u2029')))
def test_a_text_takes_no_more_than_is_counted(text: str) -> None:
    sent = json.dumps(text, ensure_ascii=False).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    assert len(sent.encode()) - len('""') <= count_sent_bytes(text.encode(), binary=False)


@given(st.binary())
def test_a_binary_body_takes_what_is_counted(body: bytes) -> None:
    assert count_sent_bytes(body, binary=True) == len(base64.b64encode(body))


@pytest.mark.parametrize(("body", "binary", "expected"), [
    (b"x" * 600, False, True), (b"x" * 601, False, False), (b'"' * 300, False, True), (b'"' * 301, False, False),
    (b"\0" * 101, False, False), (b"x" * 450, True, True), (b"x" * 451, True, False),
])  # fmt: skip
def test_what_lambda_does_not_send_is_known_before(
    body: bytes, binary: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_RESPONSE_BYTES", 600)
    assert is_sendable(body, binary=binary) == expected
