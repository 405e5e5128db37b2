"""Idempotency keys: the same request again gives the same object; another request with the key is refused.

    idempotency/<sha256 of route and key>.json     {"id": ..., "fingerprint": ...}; create-only, deleted after days

A tenant's lie below `idempotency/tenant=<name>/`: the same key of two tenants is two requests.
The document is written before the object, so that a client that repeats an interrupted request gets the same object.
"""

import hashlib

from msgspec import Struct

from pilotlight.api.http import Request
from pilotlight.contracts.batch import generate_sortable_id
from pilotlight.contracts.tenant import tenant_folder
from pilotlight.errors import ConflictError, InvalidInputError
from pilotlight.storage.documents import Document
from pilotlight.storage.object_store import ObjectStore

HEADER = "idempotency-key"
MAX_KEY_LENGTH = 255  # characters of a key


class IdempotencyRecord(Struct, frozen=True):
    """The id of the object that a key made, and the hash of its request."""

    id: str
    fingerprint: str


class IdempotencyKeys:
    """The keys of a store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def reserve_id(self, request: Request, *content: bytes) -> str:
        """Reserve the id of a request's object; raise `ConflictError` when its key was used for another content."""
        key = request.headers.get(HEADER, "")
        if not key:
            return generate_sortable_id()
        if len(key) > MAX_KEY_LENGTH:
            raise InvalidInputError(
                f"The Idempotency-Key has {len(key)} characters; at most {MAX_KEY_LENGTH} are taken."
            )
        folder = tenant_folder("idempotency", request.tenant)
        path = f"{folder}/{hashlib.sha256(f'{request.resource} {key}'.encode()).hexdigest()}.json"
        fresh = IdempotencyRecord(generate_sortable_id(), hashlib.sha256(b"\0".join(content)).hexdigest())
        record = Document(self._store, path, IdempotencyRecord).create_or_read(fresh)
        if record.fingerprint != fresh.fingerprint:
            raise ConflictError(f"The Idempotency-Key {key!r} was used for another request; take a new one.")
        return record.id
