"""The Lambda entry point of a TOKEN authorizer: API Gateway's event in, a policy out.

For anything but a token of the issuer it raises the error that API Gateway answers with 401. The log has the reason as
our own sentence: a token is a secret, and no byte of it is logged.
"""

import logging
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from functions.authorize.bearer import authenticate_caller
from functions.authorize.errors import IssuerError, RefusedError
from functions.authorize.issuer import Issuer
from functions.authorize.jwks import JwksCache, fetch_jwks
from functions.authorize.policy import build_policy

LOG = logging.getLogger("pilotlight.authorize")
LOG.setLevel(logging.INFO)


class UnauthorizedError(Exception):
    """API Gateway answers 401 to an error with exactly this text."""

    def __init__(self) -> None:
        super().__init__("Unauthorized")


class JwtAuthorizer:
    """A Lambda handler that accepts the tokens of one issuer."""

    def __init__(self, issuer: Issuer, keys: JwksCache) -> None:
        self._issuer = issuer
        self._keys = keys

    def __call__(self, event: Mapping[str, Any], context: object) -> dict[str, Any]:
        """Return the policy for a token; raises `UnauthorizedError` for a refused one, `IssuerError` without keys."""
        try:
            caller = authenticate_caller(str(event.get("authorizationToken", "")), self._issuer, self._keys)
        except RefusedError as exc:
            LOG.info("A token is refused: %s", exc)
            raise UnauthorizedError from None
        except IssuerError as exc:
            LOG.error("Nobody can be believed: %s", exc)  # noqa: TRY400 - the sentence is enough
            raise
        return build_policy(caller, event["methodArn"])


def build_authorizer(environment: Mapping[str, str]) -> JwtAuthorizer:
    """Build a handler from these environment variables."""
    issuer = Issuer.from_environment(environment)
    return JwtAuthorizer(issuer, JwksCache(partial(fetch_jwks, issuer.keys_url)))


def handle(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Answer API Gateway."""
    return AUTHORIZER(event, context)


AUTHORIZER = build_authorizer(os.environ)
