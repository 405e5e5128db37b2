"""The Lambda entry point of the authorizer: API Gateway's event in, a policy out.

The environment decides what it checks: API keys, in a REQUEST authorizer, or the tokens of an issuer, in a TOKEN one.
For anything else it raises the error that API Gateway answers with 401. The log has the reason as our own sentence:
keys and tokens are secrets, and no byte of them is logged.
"""

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from functions.authorize.caller import Caller
from functions.authorize.errors import RefusedError
from functions.authorize.policy import build_policy
from pilotlight.errors import InvalidInputError, UnavailableError

LOG = logging.getLogger("pilotlight.authorize")
LOG.setLevel(logging.INFO)
STORE_PATIENCE_S = 3.0  # well within the function's time, which would end with its environment and what that knows

Authenticate = Callable[[Mapping[str, Any]], Caller]


class UnauthorizedError(Exception):
    """API Gateway answers 401 to an error with exactly this text."""

    def __init__(self) -> None:
        super().__init__("Unauthorized")


class Authorizer:
    """A Lambda handler that answers what a caller may do, as far as `authenticate` knows who that is."""

    def __init__(self, authenticate: Authenticate) -> None:
        self._authenticate = authenticate

    def __call__(self, event: Mapping[str, Any], context: object) -> dict[str, Any]:
        """Return the policy for a caller; raises `UnauthorizedError`, or `UnavailableError` if nobody can be known."""
        try:
            caller = self._authenticate(event)
        except RefusedError as exc:
            if str(exc):
                LOG.info("A caller is refused: %s", exc)
            raise UnauthorizedError from None
        except UnavailableError as exc:
            LOG.error("Nobody can be believed: %s", exc)  # noqa: TRY400 - the sentence is enough
            raise
        return build_policy(caller, event["methodArn"])


def build_authorizer(environment: Mapping[str, str]) -> Authorizer:
    """Build a handler from these environment variables; it imports only what its mode needs."""
    mode = environment.get("PILOTLIGHT_AUTH_MODE", "keys")
    if mode == "jwt":
        return Authorizer(_build_token_check(environment))
    if mode in ("keys", "open"):
        return Authorizer(_build_key_check(environment))
    raise InvalidInputError(
        f"PILOTLIGHT_AUTH_MODE is {mode!r}; this function checks keys (keys, open) and tokens (jwt)."
    )


def _build_token_check(environment: Mapping[str, str]) -> Authenticate:
    from functions.authorize.bearer import authenticate_caller
    from functions.authorize.issuer import Issuer
    from functions.authorize.jwks import JwksCache, fetch_jwks

    issuer = Issuer.from_environment(environment)
    keys = JwksCache(partial(fetch_jwks, issuer.keys_url))
    return lambda event: authenticate_caller(str(event.get("authorizationToken", "")), issuer, keys)


def _build_key_check(environment: Mapping[str, str]) -> Authenticate:
    from functions.authorize.api_keys import KeyCache, authenticate_key
    from pilotlight.storage.object_store import open_store

    keys = KeyCache(open_store(environment.get("PILOTLIGHT_STORE", ""), patience_s=STORE_PATIENCE_S))
    return partial(authenticate_key, keys=keys, stack_meter=environment.get("PILOTLIGHT_METER", ""))


def handle(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Answer API Gateway."""
    return AUTHORIZER(event, context)


AUTHORIZER = build_authorizer(os.environ)
