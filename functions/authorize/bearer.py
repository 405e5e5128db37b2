"""Bearer tokens: verified by signature, issuer, audience and times before they are read.

Sources: RFC 6750 (bearer tokens), RFC 7519 (JWT), RFC 8725 (best current practices), RFC 9068 (access tokens). The
algorithm is the key's, never the token's: RS256 for RSA keys, ES256 for P-256 keys, nothing else.
"""

import re
from collections.abc import Mapping
from typing import Any

import jwt

from functions.authorize.caller import Caller
from functions.authorize.errors import RefusedError
from functions.authorize.issuer import Issuer
from functions.authorize.jwks import JwksCache
from pilotlight.contracts.scopes import ALL_SCOPES, Scope

BEARER = re.compile(r"[Bb]earer ([-\w]+\.[-\w]+\.[-\w]+)", re.ASCII)
MAX_HEADER_LENGTH = 8192  # characters; all headers of a request have 10,240 bytes
ALGORITHMS = ("RS256", "ES256")
LEEWAY_S = 30  # tolerance for clocks that differ
TENANT = re.compile(r"[\w.@|:/+=-]{1,128}", re.ASCII)  # it is written into a JSON line of the access log
JWT_OPTIONS: Any = {"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True}


def authenticate_caller(authorization: str, issuer: Issuer, keys: JwksCache) -> Caller:
    """Authenticate the caller of an Authorization header; raises `RefusedError`, or `IssuerError` from `keys`."""
    match = BEARER.fullmatch(authorization) if len(authorization) <= MAX_HEADER_LENGTH else None
    if match is None:
        raise RefusedError("There is no bearer token in the form of a JWT.")
    claims = _verify_claims(match[1], issuer, keys)
    tenant = _read_tenant(claims, issuer)
    return Caller(tenant, tenant, read_scopes(claims, issuer), usage_key=_read_usage_key(claims, issuer))


def _verify_claims(token: str, issuer: Issuer, keys: JwksCache) -> Mapping[str, Any]:
    """Verify a token and return its claims."""
    try:
        head = jwt.get_unverified_header(token)
        kid = head.get("kid")
        if head.get("alg") not in ALGORITHMS or not isinstance(kid, str) or "crit" in head:
            raise RefusedError(f"The head is not that of a token signed by {' or '.join(ALGORITHMS)} with a kid.")
        key = keys.get_key(kid)
        if key is None:
            raise RefusedError("The issuer has no key of that kid.")
        claims: Mapping[str, Any] = jwt.decode(
            token, key, ALGORITHMS, JWT_OPTIONS, audience=issuer.audience, issuer=issuer.name, leeway=LEEWAY_S
        )
    except (jwt.PyJWTError, ArithmeticError, ValueError, TypeError, RecursionError) as exc:
        raise RefusedError(f"{type(exc).__name__}.") from exc
    return claims


def _read_tenant(claims: Mapping[str, Any], issuer: Issuer) -> str:
    tenant = claims.get(issuer.tenant_claim)
    if not isinstance(tenant, str) or TENANT.fullmatch(tenant) is None:
        raise RefusedError(f"The claim {issuer.tenant_claim} is no name of a tenant.")
    return tenant


def read_scopes(claims: Mapping[str, Any], issuer: Issuer) -> frozenset[Scope]:
    """Read our scopes among the token's: a text with spaces, as in OAuth, or a list, as for roles."""
    claimed: set[str] = set()
    for claim in issuer.scope_claims:
        value = claims.get(claim)
        words = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
        claimed |= {word for word in words if isinstance(word, str)}
    return frozenset(scope for scope in ALL_SCOPES if issuer.scope_prefix + scope in claimed)


def _read_usage_key(claims: Mapping[str, Any], issuer: Issuer) -> str:
    if not issuer.key_claim:
        return ""
    key = claims.get(issuer.key_claim)
    if not isinstance(key, str) or not key:
        raise RefusedError(f"The claim {issuer.key_claim} holds no API key.")
    return key
