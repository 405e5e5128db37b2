"""A policy allows exactly the routes of the scopes, whatever a route's parameters are."""

import json
import re
from fnmatch import fnmatchcase
from itertools import combinations
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.authorize.caller import Caller
from functions.authorize.policy import MAX_POLICY_BYTES, build_path_patterns, build_policy
from pilotlight.api.routes import SCOPES, VERBS
from pilotlight.contracts.scopes import Scope
from pilotlight.local.authorizer import is_call_allowed

STAGE = "arn:aws:execute-api:us-east-1:123456789012:abcdefghij/prod"
LONGEST = "arn:aws-us-gov:execute-api:us-gov-east-1:123456789012:abcdefghij/production"
ALL = sorted(get_args(Scope))
EVERY = [frozenset(some) for size in range(len(ALL) + 1) for some in combinations(ALL, size)]
WORDS = sorted({word for route in SCOPES for word in route.split("/") if word and "{" not in word})
# What a path's segment may be, as it is sent: names, words of other routes, wildcards, encoded slashes and dots.
VALUES = st.sampled_from(
    [*WORDS, "*", "?", "..", ".", "%2F", "%2e%2e%2fregistry%2fmodels", "*%2F*", "digits", "v2%2Fmodels"]
)
VALUES = VALUES | st.text("abcXYZ019._-*?%~", min_size=1, max_size=12)


@given(st.sampled_from(EVERY), st.sampled_from(sorted(SCOPES)), st.data())
def test_exactly_the_routes_of_the_scopes_are_allowed(
    scopes: frozenset[Scope], route: str, data: st.DataObject
) -> None:
    path = re.sub(r"\{[^}]*\}", lambda _: data.draw(VALUES), route)
    verb = data.draw(st.sampled_from(VERBS[SCOPES[route]]))
    said = build_policy(Caller("acme", "acme", scopes), f"{STAGE}/GET/v2")
    assert is_call_allowed(said, f"{STAGE}/{verb}{path}") == (SCOPES[route] in scopes)


@pytest.mark.parametrize("route", SCOPES)
def test_a_slash_at_the_end_is_the_same_route(route: str) -> None:
    """The gateway finds the route of `/v2/`, as one form of the Open Inference Protocol writes it."""
    path = re.sub(r"\{[^}]*\}", "digits", route)
    for scope in ALL:
        said = build_policy(Caller("acme", "acme", frozenset({scope})), f"{STAGE}/GET/v2")
        assert is_call_allowed(said, f"{STAGE}/GET{path}/") == (SCOPES[route] == scope)


def test_a_model_may_be_called_as_a_route_is() -> None:
    """With a wildcard for the verb, who may infer could read the registry of a model that is called ping."""
    said = build_policy(Caller("acme", "acme", frozenset({"infer"})), f"{STAGE}/GET/v2")
    assert is_call_allowed(said, f"{STAGE}/GET/ping")
    assert not is_call_allowed(said, f"{STAGE}/GET/registry/models/ping")


def test_other_stages_and_other_apis_are_not_meant() -> None:
    said = build_policy(Caller("acme", "acme", frozenset(ALL)), f"{STAGE}/GET/v2")
    assert not is_call_allowed(said, f"{STAGE}x/GET/v2")
    assert not is_call_allowed(said, STAGE.replace("abcdefghij", "klmnopqrst") + "/GET/v2")


def test_no_scope_is_no_right() -> None:
    said = build_policy(Caller("acme", "acme", frozenset()), f"{STAGE}/GET/v2")
    assert [one["Effect"] for one in said["policyDocument"]["Statement"]] == ["Deny"]
    assert not is_call_allowed(said, f"{STAGE}/GET/v2")


@pytest.mark.parametrize("scopes", EVERY, ids=lambda scopes: "+".join(sorted(scopes)))
def test_the_answer_is_as_small_as_the_gateway_asks(scopes: frozenset[Scope]) -> None:
    said = build_policy(Caller("x" * 128, "x" * 128, scopes, "n" * 64, "k" * 128), f"{LONGEST}/GET/v2")
    assert len(json.dumps(said)) < MAX_POLICY_BYTES


def test_the_answer_names_the_tenant_and_his_key() -> None:
    said = build_policy(
        Caller("acme", "acme", frozenset({"infer"}), "ci", "k" * 20), f"{STAGE}/POST/v2/models/digits/infer"
    )
    assert (said["principalId"], said["usageIdentifierKey"]) == ("acme", "k" * 20)
    assert said["context"] == {"tenant": "acme", "scopes": "infer", "key": "ci"}
    assert "usageIdentifierKey" not in build_policy(Caller("acme", "acme", frozenset({"infer"})), f"{STAGE}/GET/v2")


def test_what_another_pattern_covers_is_left_out() -> None:
    assert set(build_path_patterns("infer")) >= {"/v2/m*", "/i*"}
    assert not [path for path in build_path_patterns("infer") if path.startswith("/v2/models/")]


def test_no_pattern_opens_a_route_of_another_scope() -> None:
    for scope in VERBS:
        opened = {route for route in SCOPES for pattern in build_path_patterns(scope) if fnmatchcase(route, pattern)}
        assert opened == {route for route, needed in SCOPES.items() if needed == scope}
