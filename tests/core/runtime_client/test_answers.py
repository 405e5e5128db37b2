"""The two forms of an answer to an HTTP request."""

import json
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.runtime_client import answers
from pilotlight.runtime_client.invocation import is_http_event

HEADERS = {"content-type": "text/event-stream"}


def test_the_prelude_has_status_and_headers_alone() -> None:
    reply = {"statusCode": 201, "headers": HEADERS, "body": "x", "isBase64Encoded": False, "cookies": ["a=1"]}
    prelude = answers.build_prelude(reply)
    assert prelude.endswith(bytes(8))
    assert json.loads(prelude[:-8]) == {"statusCode": 201, "headers": HEADERS, "cookies": ["a=1"]}


@given(st.lists(st.binary()))
def test_a_body_is_the_same_in_both_forms(chunks: list[bytes]) -> None:
    whole = answers.join_body({"statusCode": 200, "body": iter(chunks)})
    body = b64decode(whole["body"]) if whole["isBase64Encoded"] else whole["body"].encode()
    assert body == b"".join(chunks) == b"".join(answers.iterate_body(whole))


def test_a_reply_without_a_body_has_no_chunks() -> None:
    assert list(answers.iterate_body({"statusCode": 204})) == []


@pytest.mark.parametrize(
    ("result", "expected"), [({"statusCode": 200}, True), ({"statusCode": "x"}, False), ([1], False), (None, False)]
)
def test_a_reply_is_known_by_its_status(result: object, expected: bool) -> None:
    assert answers.is_reply(result) is expected


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"httpMethod": "GET", "requestContext": {}}, True),
        ({"rawPath": "/", "requestContext": {}}, True),
        ({"Records": []}, False),
        ([], False),
    ],
)
def test_requests_are_known_among_events(event: object, expected: bool) -> None:
    assert is_http_event(event) is expected
