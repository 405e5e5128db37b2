"""Keyed hashes of what may be recognised but not read (HMAC-SHA256, RFC 2104).

A plain hash of a postcode is undone by hashing all postcodes; so there is a key, in the store at `KEY_PATH`, which
those who may read captures alone cannot reach. Where it does not exist yet, and this function may not make it, nothing
is hashed but dropped.
"""

import hashlib
import hmac
import secrets
from contextlib import suppress

from pilotlight.errors import AlreadyExistsError, DeniedError, NotFoundError
from pilotlight.storage.object_store import ObjectStore

KEY_PATH = "secrets/capture-key"
KEY_BYTES = 32
HEX_DIGITS = 16  # hexadecimal: 64 bits


def hash_value(key: bytes, name: str, value: object) -> str | None:
    """The hash of one value of one field; a missing one has none."""
    if value is None:
        return None
    text = value if isinstance(value, bytes) else repr(value).encode()
    return hmac.new(key, name.encode() + b"\0" + text, hashlib.sha256).hexdigest()[:HEX_DIGITS]


def load_hash_key(store: ObjectStore) -> bytes | None:
    """The key, made where there is none; None for who may neither read nor make it."""
    try:
        return store.get(KEY_PATH).data
    except DeniedError:
        return None
    except NotFoundError:
        return create_hash_key(store)


def create_hash_key(store: ObjectStore) -> bytes | None:
    """A new key, or that of somebody who was faster."""
    try:
        with suppress(AlreadyExistsError):
            store.create(KEY_PATH, secrets.token_bytes(KEY_BYTES))
        return store.get(KEY_PATH).data
    except DeniedError:
        return None
