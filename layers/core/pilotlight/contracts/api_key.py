"""A caller's API key: `plk_<id>_<secret>`, and the document by which the authorizer knows it.

    keys/<id>.json      create-only, then compare-and-swap

The secret is shown once and stored nowhere. The document has a SHA-256 of the whole key: without salt and without a
slow function such as Argon2, since those protect passwords that can be guessed, and nobody guesses 256 random bits. A
slow one would cost every request its time. The hash covers the id, so that a document that was copied to another id
opens nothing.
"""

import base64
import hashlib
import hmac
import re
import secrets
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from pilotlight.contracts.names import NAME_PATTERN
from pilotlight.contracts.scopes import Scope

KEYS_FOLDER = "keys"
KEY_PREFIX = "plk_"  # by which scanners of repositories and logs find it
ID_PATTERN = "[a-z2-7]{12}"  # 60 random bits in base32
KEY_FORM = re.compile(rf"{KEY_PREFIX}({ID_PATTERN})_[A-Za-z0-9_-]{{43}}", re.ASCII)
SECRET_BYTES = 32
TENANT_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"  # as in infra/tenant.yaml

KeyId = Annotated[str, Meta(pattern=f"^{ID_PATTERN}$")]
KeyTime = Annotated[datetime, Meta(tz=True)]
KeyState = Literal["valid", "expired", "revoked"]


class ApiKey(Struct, frozen=True):
    """What is stored of a key."""

    id: KeyId
    name: Annotated[str, Meta(pattern=NAME_PATTERN)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]  # of the whole key
    scopes: tuple[Scope, ...]
    created: KeyTime
    by: str = ""
    tenant: Annotated[str, Meta(pattern=rf"^$|{TENANT_PATTERN}")] = ""  # empty for the stack's own callers
    expires: KeyTime | None = None
    revoked: KeyTime | None = None
    usage_key: str = ""  # the value of the API Gateway key that meters it; empty for the stack's own
    usage_key_id: str = ""  # the id of that key, where it was made for this one and goes with it

    def matches(self, key: str) -> bool:
        """Return whether a caller's key is this one, in a time that does not depend on how much of it is right."""
        return hmac.compare_digest(hash_key(key), self.sha256)

    def get_state(self, now: datetime) -> KeyState:
        """Return whether it opens anything at a time."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"


def generate_key() -> tuple[str, str]:
    """Generate a key: its id, and the whole key."""
    key_id = base64.b32encode(secrets.token_bytes(8)).decode().lower()[:12]
    return key_id, f"{KEY_PREFIX}{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"


def hash_key(key: str) -> str:
    """Hash a key as its document has it."""
    return hashlib.sha256(key.encode()).hexdigest()


def parse_key_id(key: str) -> str | None:
    """Return the id in a key; None for anything that has not the form of one."""
    match = KEY_FORM.fullmatch(key)
    return match[1] if match else None


def key_path(key_id: str) -> str:
    """Return where the document of a key is stored."""
    return f"{KEYS_FOLDER}/{key_id}.json"
