"""The local gateway's authorizer, as API Gateway has it: what is asked, what is kept, and how policies are read."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pilotlight.errors import UnsupportedError
from pilotlight.local.authorizer import MAX_CACHED_ANSWERS, LocalAuthorizer, apply_auth, is_call_allowed
from pilotlight.local.gateway_errors import FAILED, GatewayError
from pilotlight.local.proxy_events import HttpRequest
from pilotlight.local.routes import RouteMatch
from pilotlight.local.template import ApiRoute, AuthorizerSpec, FunctionSpec, Stack

ARN = "arn:aws:execute-api:us-east-1:123456789012:local/prod"
TOKEN = "Bearer abc"
AUTHORIZER = AuthorizerSpec("Ask", frozenset({"/closed", "/closed/{x}"}), "^Bearer [a-z0-9]+$", 60)


class Function:
    """An authorizer that says what it is told to, and counts."""

    def __init__(self, said: object) -> None:
        self.said = said
        self.events: list[dict[str, Any]] = []

    async def __call__(self, name: str, event: bytes) -> bytes:
        assert name == "Ask"
        self.events.append(json.loads(event))
        if isinstance(self.said, Exception):
            raise self.said
        return json.dumps(self.said).encode()


def policy(*statements: tuple[str, str]) -> dict[str, Any]:
    """Effects with resources."""
    document = [{"Effect": effect, "Action": "execute-api:Invoke", "Resource": each} for effect, each in statements]
    return {"principalId": "acme", "policyDocument": {"Statement": document}, "context": {"tenant": "acme"}}


def check(guard: LocalAuthorizer, path: str = "/closed", token: str | None = TOKEN, resource: str = "") -> object:
    headers = [] if token is None else [(b"authorization", token.encode())]
    request = HttpRequest("GET", b"", headers, b"", "127.0.0.1", "HTTP/1.1", "id", "trace", 0.0)
    return asyncio.run(guard.authorize_request(request, RouteMatch(ApiRoute("ANY", resource or path, "F"), path, {})))


def refused(guard: LocalAuthorizer, **more: Any) -> tuple[str, int]:  # noqa: ANN401 - as `check`
    with pytest.raises(GatewayError) as raised:
        check(guard, **more)
    return raised.value.kind.response, raised.value.kind.status


def test_the_function_is_told_the_token_and_the_method() -> None:
    function = Function(policy(("Allow", f"{ARN}/GET/closed")))
    assert check(LocalAuthorizer(AUTHORIZER, "prod", function)) == {"principalId": "acme", "tenant": "acme"}
    assert function.events == [{"type": "TOKEN", "authorizationToken": "Bearer abc", "methodArn": f"{ARN}/GET/closed"}]


def test_a_route_that_asks_nobody_is_open() -> None:
    function = Function(GatewayError(FAILED, "never called"))
    assert check(LocalAuthorizer(AUTHORIZER, "prod", function), "/open", None) is None
    assert function.events == []


@pytest.mark.parametrize("token", [None, "", "abc", "Bearer", "Bearer A", "Basic abc"])
def test_what_has_not_the_form_is_401_without_a_call(token: str | None) -> None:
    function = Function(policy(("Allow", f"{ARN}/*")))
    assert refused(LocalAuthorizer(AUTHORIZER, "prod", function), token=token) == ("UNAUTHORIZED", 401)
    assert function.events == []


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (GatewayError(FAILED, "failed", "Unauthorized"), ("UNAUTHORIZED", 401)),
        (GatewayError(FAILED, "failed", "Unauthorized!"), ("AUTHORIZER_FAILURE", 500)),
        (policy(("Deny", f"{ARN}/*")), ("ACCESS_DENIED", 403)),
        (policy(("Allow", f"{ARN}/POST/closed")), ("ACCESS_DENIED", 403)),
        (policy(("Allow", f"{ARN}/*"), ("Deny", f"{ARN}/GET/closed")), ("ACCESS_DENIED", 403)),
        (policy(), ("AUTHORIZER_FAILURE", 500)),
        ({}, ("AUTHORIZER_FAILURE", 500)),
        ([], ("AUTHORIZER_FAILURE", 500)),
        ({**policy(("Allow", f"{ARN}/*")), "principalId": ""}, ("AUTHORIZER_FAILURE", 500)),
        ({**policy(), "policyDocument": "Allow"}, ("AUTHORIZER_FAILURE", 500)),
    ],
)
def test_refusals_are_as_on_aws(said: object, kind: tuple[str, int]) -> None:
    assert refused(LocalAuthorizer(AUTHORIZER, "prod", Function(said))) == kind


def test_a_policy_is_kept_for_its_token_and_its_time() -> None:
    now = [0.0]
    function = Function(policy(("Allow", f"{ARN}/GET/closed*")))
    guard = LocalAuthorizer(AUTHORIZER, "prod", function, lambda: now[0])
    for path, resource in (("/closed", ""), ("/closed/a", "/closed/{x}"), ("/closed/b", "/closed/{x}")):
        assert check(guard, path, resource=resource)
    assert len(function.events) == 1
    check(guard, token="Bearer other")
    assert len(function.events) == 2
    now[0] = AUTHORIZER.ttl_s
    check(guard)
    assert len(function.events) == 3


def test_refusals_are_kept_too_and_failures_are_not() -> None:
    denied, failing = Function(policy(("Deny", f"{ARN}/*"))), Function(GatewayError(FAILED, "failed", "Unauthorized"))
    for function in (denied, failing):
        guard = LocalAuthorizer(AUTHORIZER, "prod", function)
        for _ in range(3):
            refused(guard)
    assert (len(denied.events), len(failing.events)) == (1, 3)


def test_what_is_kept_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_CACHED_ANSWERS >= 1000
    monkeypatch.setattr("pilotlight.local.authorizer.MAX_CACHED_ANSWERS", 2)
    function = Function(policy(("Allow", f"{ARN}/*")))
    guard = LocalAuthorizer(AUTHORIZER, "prod", function)
    for name in ("a", "b", "c", "c", "b", "a"):
        check(guard, token=f"Bearer {name}")
    assert [event["authorizationToken"][-1] for event in function.events] == ["a", "b", "c", "a"]


@pytest.mark.parametrize(
    ("pattern", "arn", "is_allowed"),
    [
        ("*", "GET/closed", True),
        ("GET/closed", "GET/closed", True),
        ("GET/c?osed", "GET/closed", True),
        ("GET/c?sed", "GET/closed", False),
        ("GET/*", "GET/a/b/c", True),
        ("GET/a.c", "GET/abc", False),
        ("get/closed", "GET/closed", False),
        ("GET/[ac]", "GET/a", False),
        ("GET/a*", "GET/a\nb", True),
    ],
)
def test_wildcards_are_those_of_iam(pattern: str, arn: str, is_allowed: bool) -> None:
    assert is_call_allowed(policy(("Allow", f"{ARN}/{pattern}")), f"{ARN}/{arn}") is is_allowed


def test_other_actions_allow_nothing() -> None:
    said = policy(("Allow", f"{ARN}/*"))
    said["policyDocument"]["Statement"][0]["Action"] = ["execute-api:ManageConnections"]
    assert not is_call_allowed(said, f"{ARN}/GET/closed")
    said["policyDocument"]["Statement"][0]["Action"] = "execute-api:*"
    assert is_call_allowed(said, f"{ARN}/GET/closed")


# --- authorizers that see the request ---------------------------------------------------------------------------------

REQUEST = AuthorizerSpec("Ask", frozenset({"/closed"}), None, 0, ())


def test_a_request_authorizer_sees_headers_and_path_and_no_body() -> None:
    function = Function(policy(("Allow", f"{ARN}/*")))
    check(LocalAuthorizer(REQUEST, "prod", function))
    (event,) = function.events
    assert (event["type"], event["methodArn"], event["path"]) == ("REQUEST", f"{ARN}/GET/closed", "/closed")
    assert event["headers"]["authorization"] == TOKEN
    assert event["multiValueHeaders"]["authorization"] == [TOKEN]
    assert "body" not in event


def test_without_a_cache_it_is_asked_each_time_whatever_is_sent() -> None:
    function = Function(policy(("Allow", f"{ARN}/*")))
    guard = LocalAuthorizer(REQUEST, "prod", function)
    for token in (TOKEN, TOKEN, None, "anything"):
        check(guard, token=token)
    assert len(function.events) == 4


def test_with_a_cache_a_missing_identity_header_is_401_without_a_call() -> None:
    function = Function(policy(("Allow", f"{ARN}/*")))
    guard = LocalAuthorizer(
        AuthorizerSpec("Ask", frozenset({"/closed"}), None, 60, ("authorization",)), "prod", function
    )
    assert refused(guard, token=None) == ("UNAUTHORIZED", 401)
    check(guard)
    check(guard)
    assert len(function.events) == 1


# --- where it is asked ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "parameters", "asks"),
    [
        ("127.0.0.1", {}, False),
        ("localhost", {}, False),
        ("::1", {}, False),
        ("127.0.0.1", {"Auth": "keys"}, True),
        ("0.0.0.0", {}, True),  # noqa: S104 - what this is about
        ("::", {}, True),
        ("192.0.2.7", {}, True),
        ("models.example.com", {}, True),
        ("localhost.example.com", {}, True),
    ],
)
def test_beyond_loopback_the_authorizer_is_always_asked(host: str, parameters: dict[str, str], asks: bool) -> None:
    specs = {name: FunctionSpec(name, "m.h", 128, 3, {}, ()) for name in ("Ask", "F")}
    stack = Stack(specs, (), "prod", {}, frozenset(), Path(), authorizer=REQUEST)
    applied = apply_auth(stack, host, parameters)
    assert (applied.authorizer is not None, "Ask" in applied.functions) == (asks, asks)


def test_signatures_cannot_be_checked_here() -> None:
    stack = Stack({}, (), "prod", {}, frozenset(), Path())
    with pytest.raises(UnsupportedError, match="Auth=iam cannot be checked on this machine"):
        apply_auth(stack, "127.0.0.1", {"Auth": "iam"})
