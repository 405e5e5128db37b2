"""API keys: found in a request's headers, and compared with the documents in the store.

A document is used for a minute, so a revoked key is dead after that time; an expired one is dead at once. While the
store does not answer, known keys go on for ten minutes. What has not the form of a key costs no read. An unknown id
costs none by itself either: ids are listed at most once in five seconds, whoever asks, and only a listed one is read.
"""

import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from functions.authorize.caller import Caller
from functions.authorize.errors import KeysUnavailableError, RefusedError
from pilotlight.api_keys.key_store import list_key_ids, read_key
from pilotlight.contracts.api_key import ApiKey, parse_key_id
from pilotlight.errors import BrokenDocumentError, NotFoundError, StoreError
from pilotlight.storage.object_store import ObjectStore

LOG = logging.getLogger("pilotlight.authorize")
FRESH_S = 60.0  # for which a document is used without reading it again: the life of a revoked key
STALE_S = 600.0  # for which it is used while the store does not answer
RELIST_S = 5.0  # minimum between two listings, so that a new key works after this time at the latest
RETRY_S = 2.0  # in which a store that has just failed is not asked again
MAX_CACHED_KEYS = 10_000  # documents, of about 1 kB each; the oldest is dropped first
MAX_KEY_CHARACTERS = 200
NO_KEY_HASH = hashlib.sha256(b"no key").hexdigest()


class CachedKey(NamedTuple):
    """A document as it was read; None for one that is broken."""

    document: ApiKey | None
    read_at: float


class KeyCache:
    """The documents of keys by their ids; `clock` is in seconds."""

    def __init__(self, store: ObjectStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._cached: dict[str, CachedKey] = {}
        self._listed: frozenset[str] = frozenset()
        self._listed_at: float | None = None
        self._failed_at: float | None = None

    def get_key(self, key_id: str) -> ApiKey | None:
        """Return the document of a key, None if there is none; `KeysUnavailableError` if the store does not answer."""
        now = self._clock()
        cached = self._cached.get(key_id)
        if cached is not None and now - cached.read_at < FRESH_S:
            return cached.document
        try:
            return self._read_listed_key(key_id, now, is_known=cached is not None)
        except StoreError as exc:
            if cached is not None and now - cached.read_at < STALE_S:
                return cached.document
            raise KeysUnavailableError(f"The store of keys does not answer: {exc}") from exc

    def _read_listed_key(self, key_id: str, now: float, *, is_known: bool) -> ApiKey | None:
        if self._failed_at is not None and now - self._failed_at < RETRY_S:
            raise StoreError("It failed a moment ago.")
        try:
            return self._read_key(key_id, now) if is_known or self._is_listed(key_id, now) else None
        except StoreError:
            self._failed_at = now
            raise

    def _is_listed(self, key_id: str, now: float) -> bool:
        if key_id not in self._listed and (self._listed_at is None or now - self._listed_at >= RELIST_S):
            self._listed, self._listed_at = list_key_ids(self._store), now
        return key_id in self._listed

    def _read_key(self, key_id: str, now: float) -> ApiKey | None:
        """Read a document and remember it; a broken one costs its own key alone."""
        document = None
        try:
            document = read_key(self._store, key_id)
        except NotFoundError:
            self._listed -= {key_id}
            self._cached.pop(key_id, None)
            return None
        except BrokenDocumentError as exc:
            LOG.error("A key is refused: %s", exc)  # noqa: TRY400 - the sentence is enough
        self._cached.pop(key_id, None)  # so that the oldest is the first
        while len(self._cached) >= MAX_CACHED_KEYS:
            del self._cached[next(iter(self._cached))]
        self._cached[key_id] = CachedKey(document, now)
        return document


def authenticate_key(
    event: Mapping[str, Any], keys: KeyCache, stack_meter: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Caller:
    """Authenticate the caller of a request; raises `RefusedError`, or `KeysUnavailableError` from `keys`."""
    key = find_key(event)
    key_id = parse_key_id(key)
    document = keys.get_key(key_id) if key_id else None
    if document is None:
        hmac.compare_digest(hashlib.sha256(key.encode()).hexdigest(), NO_KEY_HASH)  # takes as long as for a known id
        raise RefusedError
    if not document.matches(key):
        raise RefusedError(f"The secret of the key {document.id} is wrong.")
    if (state := document.get_state(now())) != "valid":
        raise RefusedError(f"The key {document.id} is {state}.")
    return Caller(
        principal=document.id,
        tenant=document.tenant,
        scopes=frozenset(document.scopes),
        key_name=document.name,
        usage_key=document.usage_key or stack_meter,
    )


def find_key(event: Mapping[str, Any]) -> str:
    """Find the one key in a request's headers; raise `RefusedError` if there is none, or if there are several."""
    found = {value for value in _iter_sent_values(event) if parse_key_id(value)}
    if len(found) > 1:
        raise RefusedError("There are two keys in one request.")
    if not found:
        raise RefusedError
    return found.pop()


def _iter_sent_values(event: Mapping[str, Any]) -> Iterator[str]:
    """Yield what may be a key: of `x-api-key`, and of `Authorization: Bearer`, which the openai client sends."""
    headers: Mapping[str, Any] = event.get("multiValueHeaders") or event.get("headers") or {}
    for name, sent in headers.items():
        for value in sent if isinstance(sent, list) else [sent]:
            text = str(value).strip()[:MAX_KEY_CHARACTERS]
            if name.lower() == "x-api-key":
                yield text
            elif name.lower() == "authorization" and text[:7].lower() == "bearer ":
                yield text[7:].strip()
