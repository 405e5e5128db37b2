"""Keyed hashes of values that may be recognised but not read (HMAC-SHA256, RFC 2104).

A plain hash of a postcode is undone by hashing all postcodes. So there is a key, in the store at `KEY_PATH`, which
principals that may only read captures cannot read. If the key does not exist and this function may not create it,
fields that should be hashed are dropped.
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
    """Hash one value of one field; a missing value has no hash."""
    if value is None:
        return None
    text = value if isinstance(value, bytes) else repr(value).encode()
    return hmac.new(key, name.encode() + b"\0" + text, hashlib.sha256).hexdigest()[:HEX_DIGITS]


def load_hash_key(store: ObjectStore) -> bytes | None:
    """Load the key, or create it if there is none; None if this function may do neither."""
    try:
        return store.get(KEY_PATH).data
    except DeniedError:
        return None
    except NotFoundError:
        return create_hash_key(store)


def create_hash_key(store: ObjectStore) -> bytes | None:
    """Create a key, or load the one that another environment created first."""
    try:
        with suppress(AlreadyExistsError):
            store.create(KEY_PATH, secrets.token_bytes(KEY_BYTES))
        return store.get(KEY_PATH).data
    except DeniedError:
        return None
