"""What an Idempotency-Key means: the same request again is the same thing, another request under it is refused.

    idempotency/<sha256 of route and key>.json     {"id": ..., "fingerprint": ...}; create-only, forgotten after days

The document is written before the thing itself, so that who repeats a request that was cut off makes the same thing.
"""

import hashlib

from msgspec import Struct

from pilotlight.api.http import Request
from pilotlight.contracts.batch import new_id
from pilotlight.contracts.manifest import decode, encode
from pilotlight.errors import AlreadyExistsError, ConflictError, InvalidInputError
from pilotlight.storage.object_store import ObjectStore

HEADER = "idempotency-key"
LONGEST = 255  # characters of a key


class Known(Struct, frozen=True):
    """What was made under a key, and for what."""

    id: str
    fingerprint: str


class Once:
    """The keys of a store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def id(self, request: Request, *content: bytes) -> str:
        """The id for what a request makes; `ConflictError` when its key was used for another content."""
        key = request.headers.get(HEADER, "")
        if not key:
            return new_id()
        if len(key) > LONGEST:
            raise InvalidInputError(f"The Idempotency-Key has {len(key)} characters; at most {LONGEST} are taken.")
        path = f"idempotency/{hashlib.sha256(f'{request.resource} {key}'.encode()).hexdigest()}.json"
        fresh = Known(new_id(), hashlib.sha256(b"\0".join(content)).hexdigest())
        try:
            self._store.create(path, encode(fresh))
        except AlreadyExistsError as exc:
            known = decode(self._store.get(path).data, Known, path)
            if known.fingerprint != fresh.fingerprint:
                raise ConflictError(
                    f"The Idempotency-Key {key!r} was used for another request; take a new one."
                ) from exc
            return known.id
        return fresh.id
