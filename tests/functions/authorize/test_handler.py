"""What API Gateway is told, and what the log is not."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from functions.authorize import handler
from functions.authorize.bearer import authenticate_caller
from functions.authorize.caller import Caller
from functions.authorize.errors import IssuerError
from functions.authorize.handler import Authorizer, UnauthorizedError
from functions.authorize.issuer import Issuer
from functions.authorize.jwks import JwksCache
from pilotlight.api_keys.key_store import KeyStore
from pilotlight.errors import InvalidInputError
from pilotlight.storage.object_store import open_store
from tests.issuer import FakeIssuer

ARN = "arn:aws:execute-api:us-east-1:123456789012:abcdefghij/prod/GET/v2"


def event(token: str) -> dict[str, str]:
    return {"type": "TOKEN", "authorizationToken": f"Bearer {token}", "methodArn": ARN}


def token_authorizer(issuer: Issuer, keys: JwksCache) -> Authorizer:
    def authenticate(event: Mapping[str, Any]) -> Caller:
        return authenticate_caller(str(event.get("authorizationToken", "")), issuer, keys)

    return Authorizer(authenticate)


def test_a_right_token_gets_a_policy(fake: FakeIssuer, issuer: Issuer, keys: JwksCache) -> None:
    said = token_authorizer(issuer, keys)(event(fake.token()), None)
    assert said["principalId"] == "acme"
    assert said["policyDocument"]["Statement"][0]["Effect"] == "Allow"


def test_a_wrong_one_is_the_word_that_becomes_401(
    fake: FakeIssuer, issuer: Issuer, keys: JwksCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    token = fake.token(exp=1)
    with pytest.raises(UnauthorizedError, match=r"^Unauthorized$") as raised:
        token_authorizer(issuer, keys)(event(token), None)
    assert raised.value.__suppress_context__  # Lambda logs what is raised, and what that came from
    assert "ExpiredSignatureError" in caplog.text
    assert not [part for part in token.split(".") if part in caplog.text]


def test_an_event_without_a_token_is_refused(issuer: Issuer, keys: JwksCache) -> None:
    with pytest.raises(UnauthorizedError):
        token_authorizer(issuer, keys)({"methodArn": ARN}, None)


def test_an_issuer_that_is_away_is_no_refusal(fake: FakeIssuer, issuer: Issuer) -> None:
    def away() -> dict[str, str]:
        raise IssuerError("away")

    with pytest.raises(IssuerError):
        token_authorizer(issuer, JwksCache(away))(event(fake.token()), None)


def test_the_handler_is_built_from_the_environment(tmp_path: Path) -> None:
    issuer = {"PILOTLIGHT_ISSUER": "https://issuer.example.com", "PILOTLIGHT_AUDIENCE": "pilotlight"}
    tokens = handler.build_authorizer({"PILOTLIGHT_AUTH_MODE": "jwt", **issuer})
    with pytest.raises(UnauthorizedError):
        tokens(event("a.b.c"), None)
    store = str(tmp_path / "store")
    for mode in ("keys", "open"):
        variables = {"PILOTLIGHT_AUTH_MODE": mode, "PILOTLIGHT_STORE": store, "PILOTLIGHT_METER": "m" * 20}
        created = KeyStore(open_store(store)).create_key(mode, ("infer",), actor="test")
        said = handler.build_authorizer(variables)({"headers": {"x-api-key": created.key}, "methodArn": ARN}, None)
        assert (said["principalId"], said["usageIdentifierKey"]) == (created.document.id, "m" * 20)
    with pytest.raises(UnauthorizedError):
        handler.handle({"headers": {"x-api-key": created.key}, "methodArn": ARN}, None)  # it has another store


@pytest.mark.parametrize("mode", ["", "iam", "admin-key", "KEYS"])
def test_a_mode_that_it_does_not_know_is_no_open_door(mode: str) -> None:
    with pytest.raises(InvalidInputError, match="PILOTLIGHT_AUTH_MODE is"):
        handler.build_authorizer({"PILOTLIGHT_AUTH_MODE": mode, "PILOTLIGHT_STORE": "memory://"})
