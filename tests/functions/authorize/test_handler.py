"""What API Gateway is told, and what the log is not."""

import logging

import pytest

from functions.authorize import handler
from functions.authorize.errors import IssuerError
from functions.authorize.handler import JwtAuthorizer, UnauthorizedError
from functions.authorize.issuer import Issuer
from functions.authorize.jwks import JwksCache
from tests.issuer import FakeIssuer

ARN = "arn:aws:execute-api:us-east-1:123456789012:abcdefghij/prod/GET/v2"


def event(token: str) -> dict[str, str]:
    return {"type": "TOKEN", "authorizationToken": f"Bearer {token}", "methodArn": ARN}


def test_a_right_token_gets_a_policy(fake: FakeIssuer, issuer: Issuer, keys: JwksCache) -> None:
    said = JwtAuthorizer(issuer, keys)(event(fake.token()), None)
    assert said["principalId"] == "acme"
    assert said["policyDocument"]["Statement"][0]["Effect"] == "Allow"


def test_a_wrong_one_is_the_word_that_becomes_401(
    fake: FakeIssuer, issuer: Issuer, keys: JwksCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    token = fake.token(exp=1)
    with pytest.raises(UnauthorizedError, match=r"^Unauthorized$") as raised:
        JwtAuthorizer(issuer, keys)(event(token), None)
    assert raised.value.__suppress_context__  # Lambda logs what is raised, and what that came from
    assert "ExpiredSignatureError" in caplog.text
    assert not [part for part in token.split(".") if part in caplog.text]


def test_an_event_without_a_token_is_refused(issuer: Issuer, keys: JwksCache) -> None:
    with pytest.raises(UnauthorizedError):
        JwtAuthorizer(issuer, keys)({"methodArn": ARN}, None)


def test_an_issuer_that_is_away_is_no_refusal(fake: FakeIssuer, issuer: Issuer) -> None:
    def away() -> dict[str, str]:
        raise IssuerError("away")

    with pytest.raises(IssuerError):
        JwtAuthorizer(issuer, JwksCache(away))(event(fake.token()), None)


def test_the_handler_is_built_from_the_environment() -> None:
    built = handler.build_authorizer(
        {"PILOTLIGHT_ISSUER": "https://issuer.example.com", "PILOTLIGHT_AUDIENCE": "pilotlight"}
    )
    with pytest.raises(UnauthorizedError):
        built(event("a.b.c"), None)
    with pytest.raises(UnauthorizedError):
        handler.handle(event("a.b.c"), None)
