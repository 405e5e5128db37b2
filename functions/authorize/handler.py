"""Where API Gateway asks who is calling: a TOKEN authorizer's event in, a policy out.

What is no token of the issuer raises the one word that API Gateway answers with 401. The log says why, by our own
sentences: a token is a secret, and no byte of it is logged.
"""

import logging
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from functions.authorize.bearer import authenticate_caller
from functions.authorize.errors import IssuerError, RefusedError
from functions.authorize.issuer import Issuer
from functions.authorize.keys import JwksCache, fetch_jwks
from functions.authorize.policy import build_policy

LOG = logging.getLogger("pilotlight.authorize")
LOG.setLevel(logging.INFO)


class UnauthorizedError(Exception):
    """API Gateway makes a 401 of an error whose text is this word."""

    def __init__(self) -> None:
        super().__init__("Unauthorized")


class JwtAuthorizer:
    """A Lambda handler that believes the tokens of one issuer."""

    def __init__(self, issuer: Issuer, keys: JwksCache) -> None:
        self._issuer = issuer
        self._keys = keys

    def __call__(self, event: Mapping[str, Any], context: object) -> dict[str, Any]:
        """The policy for a token; `UnauthorizedError` for one that is not believed, `IssuerError` without keys."""
        try:
            caller = authenticate_caller(str(event.get("authorizationToken", "")), self._issuer, self._keys)
        except RefusedError as exc:
            LOG.info("A token is refused: %s", exc)
            raise UnauthorizedError from None
        except IssuerError as exc:
            LOG.error("Nobody can be believed: %s", exc)  # noqa: TRY400 - the sentence tells all
            raise
        return build_policy(caller, event["methodArn"])


def build_authorizer(environment: Mapping[str, str]) -> JwtAuthorizer:
    """A handler for these variables."""
    issuer = Issuer.from_environment(environment)
    return JwtAuthorizer(issuer, JwksCache(partial(fetch_jwks, issuer.keys_url)))


def handle(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Answer API Gateway."""
    return AUTHORIZER(event, context)


AUTHORIZER = build_authorizer(os.environ)
