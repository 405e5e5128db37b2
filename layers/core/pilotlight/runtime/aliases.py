"""Alias documents as one environment has read them: each as new as any read so far, whatever order reads end in.

It knows documents and their order in time, not models.
"""

import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from pilotlight.contracts import AliasDocument
from pilotlight.errors import NotFoundError, UnavailableError
from pilotlight.registry import Registry, moment

LOG = logging.getLogger("pilotlight.runtime")
AliasKey = tuple[str, str]  # name and alias


@dataclass(frozen=True)
class Followed:
    """An alias as last read: the document, its e_tag, the number of the read, and when, in the clock's seconds."""

    document: AliasDocument
    e_tag: str
    number: int
    at: float


class Aliases:
    """What is known of each alias. Safe for threads."""

    def __init__(self, registry: Registry, clock: Callable[[], float]) -> None:
        self._registry = registry
        self._clock = clock
        self._known: dict[AliasKey, Followed] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def known(self, key: AliasKey) -> Followed | None:
        """The alias as last read, however long ago."""
        return self._known.get(key)

    def read(self, key: AliasKey) -> Followed:
        """Read the document again; the one known already counts while the store does not answer rightly.

        `NotFoundError` when the alias is gone, `UnavailableError` when the store fails and nothing is known.
        """
        number = next(self._numbers)
        try:
            document, e_tag = self._registry.tagged_alias(*key)
        except NotFoundError:
            self._known.pop(key, None)
            raise
        except UnavailableError as exc:
            return self._kept(key, exc)
        with self._lock:
            known = self._known.get(key)
            if known is not None and is_late(document, e_tag, number, known):
                document, e_tag, number = known.document, known.e_tag, max(number, known.number)
            self._known[key] = Followed(document, e_tag, number, self._clock())
            return self._known[key]

    def _kept(self, key: AliasKey, error: UnavailableError) -> Followed:
        """What is known, as if it had been read now, so that a store that is away is not asked with each request."""
        with self._lock:
            known = self._known.get(key)
            if known is None:
                raise error
            LOG.warning("%s@%s keeps version %d: %s", *key, known.document.version, error)
            self._known[key] = Followed(known.document, known.e_tag, known.number, self._clock())
            return self._known[key]


def is_late(document: AliasDocument, e_tag: str, number: int, known: Followed) -> bool:
    """Whether what a read brought is older than what is known.

    Version numbers do not tell, since a rollback goes to a lower one. The moves of an alias are ordered by `at`, which
    the registry makes rise whatever the clocks say; a read that began before another that has ended is late too.
    """
    if e_tag == known.e_tag:
        return False
    if number < known.number:
        return True
    found, before = moment(document.at), moment(known.document.at)
    return found is not None and before is not None and found < before
