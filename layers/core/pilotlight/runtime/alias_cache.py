"""Cache alias documents in one environment: a slow read never replaces a newer document.

This module depends on documents and their order, not on models.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from pilotlight.contracts.alias import AliasDocument
from pilotlight.errors import NotFoundError, UnavailableError
from pilotlight.registry.registry import Registry
from pilotlight.runtime.single_flight import SingleFlight, wait_for_document

LOG = logging.getLogger("pilotlight.runtime")
AliasKey = tuple[str, str]  # name and alias


@dataclass(frozen=True)
class CachedAlias:
    """An alias as last read: the document, its e_tag, and the time of the read in the clock's seconds."""

    document: AliasDocument
    e_tag: str
    read_at: float


class AliasCache:
    """The last document of each alias, stale `max_age_seconds` after it was read. Thread-safe."""

    def __init__(self, registry: Registry, max_age_seconds: float, clock: Callable[[], float]) -> None:
        self.max_age_seconds = max_age_seconds
        self._registry = registry
        self._clock = clock
        self._entries: dict[AliasKey, CachedAlias] = {}
        self._reads: SingleFlight[AliasKey, CachedAlias] = SingleFlight(self.get_or_read)
        self._lock = threading.Lock()

    def get_cached(self, key: AliasKey) -> CachedAlias | None:
        """Return the alias as last read, at any age; None if it is not known."""
        return self._entries.get(key)

    def get_age(self, key: AliasKey) -> float | None:
        """Return the seconds since the alias was read; None if it is not known."""
        cached = self.get_cached(key)
        return self._clock() - cached.read_at if cached is not None else None

    def wait_for_read(self, key: AliasKey, deadline: float) -> None:
        """Read an unknown alias, once for all waiting requests; `LoadingError` if that lasts until `deadline`."""
        wait_for_document(self._reads.start(key), deadline, f"{key[0]}@{key[1]}")

    def get_or_read(self, key: AliasKey) -> CachedAlias:
        """Return the alias as last read; read it if it is not known, with the errors of `refresh`."""
        return self._entries.get(key) or self.refresh(key)

    def refresh(self, key: AliasKey) -> CachedAlias:
        """Read the document again; while the store fails, keep the known one.

        Raises `NotFoundError` if the alias is gone, `UnavailableError` if the store fails and no document is known.
        """
        try:
            document, e_tag = self._registry.load_alias_with_e_tag(*key)
        except NotFoundError:
            self._entries.pop(key, None)
            raise
        except UnavailableError as exc:
            return self._keep_stale(key, exc)
        with self._lock:
            cached = self._entries.get(key)
            # A slow read may return an older document than the one that is known by now.
            if cached is not None and document.number < cached.document.number:
                document, e_tag = cached.document, cached.e_tag
            self._entries[key] = CachedAlias(document, e_tag, self._clock())
            return self._entries[key]

    def expire_all(self) -> None:
        """Mark all documents as very old."""
        with self._lock:
            for key, cached in self._entries.items():
                self._entries[key] = CachedAlias(cached.document, cached.e_tag, -inf)

    def _keep_stale(self, key: AliasKey, error: UnavailableError) -> CachedAlias:
        """Keep the known document as if read now, so that a failing store is not read with each request."""
        with self._lock:
            cached = self._entries.get(key)
            if cached is None:
                raise error
            LOG.warning("%s@%s keeps version %d: %s", *key, cached.document.version, error)
            self._entries[key] = CachedAlias(cached.document, cached.e_tag, self._clock())
            return self._entries[key]
