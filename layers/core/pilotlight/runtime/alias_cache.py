"""Alias documents as one environment has read them: each as new as any read so far, whatever order reads end in.

It knows documents and their order in time, not models.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from pilotlight.contracts.manifest import AliasDocument
from pilotlight.errors import NotFoundError, UnavailableError
from pilotlight.registry.registry import Registry

LOG = logging.getLogger("pilotlight.runtime")
AliasKey = tuple[str, str]  # name and alias


@dataclass(frozen=True)
class Followed:
    """An alias as last read: the document, its e_tag, and when, in the clock's seconds."""

    document: AliasDocument
    e_tag: str
    at: float


class Aliases:
    """What is known of each alias. Safe for threads."""

    def __init__(self, registry: Registry, clock: Callable[[], float]) -> None:
        self._registry = registry
        self._clock = clock
        self._known: dict[AliasKey, Followed] = {}
        self._lock = threading.Lock()

    def known(self, key: AliasKey) -> Followed | None:
        """The alias as last read, however long ago."""
        return self._known.get(key)

    def get(self, key: AliasKey) -> Followed:
        """The alias as last read, or read now if nobody has read it; raises what `read` does."""
        return self._known.get(key) or self.read(key)

    def read(self, key: AliasKey) -> Followed:
        """Read the document again; the one known already counts while the store does not answer rightly.

        `NotFoundError` when the alias is gone, `UnavailableError` when the store fails and nothing is known.
        """
        try:
            document, e_tag = self._registry.tagged_alias(*key)
        except NotFoundError:
            self._known.pop(key, None)
            raise
        except UnavailableError as exc:
            return self._kept(key, exc)
        with self._lock:
            known = self._known.get(key)
            # A slow read may bring an older document than the one that is known by now.
            if known is not None and document.number < known.document.number:
                document, e_tag = known.document, known.e_tag
            self._known[key] = Followed(document, e_tag, self._clock())
            return self._known[key]

    def forget(self) -> None:
        """Take everything that is known for very old."""
        with self._lock:
            for key, known in self._known.items():
                self._known[key] = Followed(known.document, known.e_tag, -inf)

    def _kept(self, key: AliasKey, error: UnavailableError) -> Followed:
        """What is known, as if it had been read now, so that a store that is away is not asked with each request."""
        with self._lock:
            known = self._known.get(key)
            if known is None:
                raise error
            LOG.warning("%s@%s keeps version %d: %s", *key, known.document.version, error)
            self._known[key] = Followed(known.document, known.e_tag, self._clock())
            return self._known[key]
