"""The issuer's public keys: fetched over https, cached for minutes, fetched again for an unknown key.

An unknown `kid` causes at most one fetch in half a minute, from all callers together. While the issuer is unavailable
its old keys stay valid for an hour. Sources: RFC 7517 (JWK), RFC 8725 (best current practices). The only module here
that imports ssl and http.client.
"""

import http.client
import json
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError

from functions.authorize.errors import IssuerError

FRESH_S = 600.0  # for which fetched keys are used without a new fetch
STALE_S = 3600.0  # for which they are used while the issuer does not answer
REFETCH_S = 30.0  # minimum between two fetches
FIRST_RETRY_S = 3.0  # the same, while there are no keys at all
TIMEOUT_S = 3.0  # of a silent issuer
MAX_JWKS_BYTES = 256 * 1024  # bytes of a JWKS
RSA_BITS = 2048  # at least (RFC 7518, 3.3)
OK = 200

Jwks = Mapping[str, Any]


class JwksCache:
    """Keys by their `kid`. `fetch` returns the JWKS or raises `IssuerError`; `clock` is in seconds."""

    def __init__(self, fetch: Callable[[], Jwks], clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._cached: dict[str, PyJWK] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None

    def get_key(self, kid: str) -> PyJWK | None:
        """Return the key of this id, or None if the issuer has none; `IssuerError` if its keys are unavailable."""
        now = self._clock()
        if not self._is_recent(self._fetched_at, FRESH_S, now) or kid not in self._cached:
            self._refresh(now)
        if not self._is_recent(self._fetched_at, STALE_S, now):
            raise IssuerError("The issuer's keys could not be fetched, and there are none from the last hour.")
        return self._cached.get(kid)

    def _refresh(self, now: float) -> None:
        """Fetch the keys, unless that was tried recently; a failure keeps the old keys."""
        if self._is_recent(self._tried_at, REFETCH_S if self._cached else FIRST_RETRY_S, now):
            return
        self._tried_at = now
        try:
            self._cached = parse_jwks(self._fetch())
        except IssuerError:
            if self._fetched_at is None:
                raise
        else:
            self._fetched_at = now

    def _is_recent(self, since: float | None, seconds: float, now: float) -> bool:
        return since is not None and now - since < seconds


def parse_jwks(jwks: Jwks) -> dict[str, PyJWK]:
    """Parse the keys of a JWKS that may sign tokens here, each bound to the one algorithm of its kind."""
    jwks_keys = jwks.get("keys")
    if not isinstance(jwks_keys, list):
        raise IssuerError("The issuer's JWKS has no list of keys.")
    keys_by_id: dict[str, PyJWK] = {}
    for jwk in jwks_keys:
        if isinstance(jwk, dict) and isinstance(kid := jwk.get("kid"), str) and (key := _parse_key(jwk)) is not None:
            keys_by_id.setdefault(kid, key)
    return keys_by_id


def _parse_key(jwk: dict[str, Any]) -> PyJWK | None:
    """Parse a key: RS256 for RSA from 2048 bits, ES256 for P-256; None for others and those not for signatures."""
    kind = (jwk.get("kty"), jwk.get("crv")) if jwk.get("kty") == "EC" else jwk.get("kty")
    algorithm = {"RSA": "RS256", ("EC", "P-256"): "ES256"}.get(kind) if isinstance(kind, str | tuple) else None
    if algorithm is None or jwk.get("alg", algorithm) != algorithm or jwk.get("use", "sig") != "sig":
        return None
    try:
        key = PyJWK({name: value for name, value in jwk.items() if name != "d"}, algorithm)  # never a private key
    except (PyJWTError, ValueError, TypeError):
        return None
    is_weak = isinstance(key.key, RSAPublicKey) and key.key.key_size < RSA_BITS
    return None if is_weak else key


def fetch_jwks(url: str) -> Jwks:
    """Fetch the JWKS at an https URL; `IssuerError` explains a failure. Redirects are not followed."""
    try:
        status, body = _send_get_request(url)
        document = json.loads(body) if status == OK and len(body) <= MAX_JWKS_BYTES else None
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as exc:
        raise IssuerError(f"{url} did not give keys: {type(exc).__name__}.") from exc
    if not isinstance(document, dict):
        raise IssuerError(f"{url} did not give keys: status {status}, {len(body)} bytes, {MAX_JWKS_BYTES} at most.")
    return document


def _send_get_request(url: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    context = ssl.create_default_context()
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S, context=context)
    try:
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        connection.request("GET", target, headers={"Accept": "application/json"})
        response = connection.getresponse()
        return response.status, response.read(MAX_JWKS_BYTES + 1)
    finally:
        connection.close()
