"""The issuer whose tokens are accepted, and which claims are read; loaded once from the environment.

The function reads these settings alone, and without what the other functions' need.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pilotlight.errors import InvalidInputError

WELL_KNOWN = "/.well-known/jwks.json"
DEFAULTS = {"PILOTLIGHT_SCOPE_CLAIM": "scope scp roles", "PILOTLIGHT_TENANT_CLAIM": "sub"}


@dataclass(frozen=True)
class Issuer:
    """An issuer, and how its tokens are read."""

    name: str  # what `iss` must be, exactly
    audience: frozenset[str]  # one of these must be in `aud`
    keys_url: str  # https URL of its JWKS
    scope_claims: tuple[str, ...] = ("scope", "scp", "roles")  # claims that may contain scopes
    scope_prefix: str = ""  # before infer, batch, admin and train, such as https://models.example.com/
    tenant_claim: str = "sub"  # the claim of the tenant to bill
    key_claim: str = ""  # the claim with the tenant's API key, which its usage plan counts; empty for none

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Issuer":
        """Load the issuer from the variables; `InvalidInputError` names a missing or wrong one."""
        variables = {**DEFAULTS, **{name: value for name, value in environment.items() if value}}
        name = _require_variable(variables, "PILOTLIGHT_ISSUER")
        return cls(
            name=name,
            audience=frozenset(_require_variable(variables, "PILOTLIGHT_AUDIENCE").split()),
            keys_url=_check_https_url(variables.get("PILOTLIGHT_ISSUER_KEYS") or name.rstrip("/") + WELL_KNOWN),
            scope_claims=tuple(variables["PILOTLIGHT_SCOPE_CLAIM"].split()),
            scope_prefix=variables.get("PILOTLIGHT_SCOPE_PREFIX", ""),
            tenant_claim=variables["PILOTLIGHT_TENANT_CLAIM"],
            key_claim=variables.get("PILOTLIGHT_KEY_CLAIM", ""),
        )


def _require_variable(environment: Mapping[str, str], name: str) -> str:
    if name not in environment:
        raise InvalidInputError(f"{name} is not set; a function that checks tokens must know whose and for whom.")
    return environment[name]


def _check_https_url(url: str) -> str:
    """Check the URL of keys, which decide which tokens are valid: over https, with a host, without a user."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        raise InvalidInputError(f"{url!r} is no address of keys; they are fetched from https://host/path alone.")
    return url
