"""A store of which some things were read before anybody asked for them.

It hands out each of them once, and whatever went wrong as if it had gone wrong now; it does not read ahead itself.
"""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING

from pilotlight.storage.object_store import ObjectStore, Part, Stored

if TYPE_CHECKING:  # files.py builds on this module
    from pilotlight.runtime.model_files import Laid


class ReadAhead(ObjectStore):
    """Another store, with what was read from it already; a document counts as read for `seconds`."""

    def __init__(self, inner: ObjectStore, seconds: float) -> None:
        super().__init__(inner.url, inner._store, inner.address)
        self._inner = inner
        self._seconds = seconds
        self._documents: dict[str, tuple[Future[Stored], float]] = {}  # with the time when it was read
        self._models: dict[tuple[str, int], Future[Laid]] = {}
        self._resolving: dict[str, Event] = {}  # by the folder of a model

    def resolving(self, name: str) -> Event:
        """Have reads of a model's documents wait until the event is set."""
        return self._resolving.setdefault(f"models/{name}/", Event())

    def read(self, path: str) -> Stored:
        """A document from the store, kept for who asks next; errors are kept too."""
        future: Future[Stored] = Future()
        self._documents[path] = future, time.monotonic()
        try:
            future.set_result(self._inner.get(path))
        except Exception as exc:
            future.set_exception(exc)
            raise
        return future.result()

    def expect(self, name: str, version: int) -> "Future[Laid]":
        """The files of a version are on their way."""
        return self._models.setdefault((name, version), Future())

    def taken(self, name: str, version: int) -> "Laid | None":
        """The files of a version if they were expected, once; other versions of the model are let go of.

        Waits for them. Raises what fetching them raised.
        """
        for key in [key for key in self._models if key[0] == name and key[1] != version]:
            self._models.pop(key).add_done_callback(close)
        future = self._models.pop((name, version), None)
        return future.result() if future else None

    def get(self, path: str) -> Stored:
        """The whole object; what was read less than `seconds` ago is not read again the first time."""
        for folder, resolved in self._resolving.items():
            if path.startswith(folder):
                resolved.wait()
        future, at = self._documents.pop(path, (None, 0.0))
        if future is not None and time.monotonic() - at < self._seconds:
            return future.result()
        return self._inner.get(path)

    def stream(self, path: str, chunk_bytes: int = 8 << 20) -> Iterator[memoryview]:
        """As the store does it."""
        return self._inner.stream(path, chunk_bytes)

    def part(self, path: str, fd: int, start: int, end: int) -> int:
        """As the store does it."""
        return self._inner.part(path, fd, start, end)

    def span(self, path: str, start: int, end: int) -> Iterator[memoryview]:
        """As the store does it."""
        return self._inner.span(path, start, end)

    @contextmanager
    def reading(self, path: str) -> Iterator[Part]:
        """As the store does it."""
        with self._inner.reading(path) as part:
            yield part

    def replace(self, path: str, data: bytes, e_tag: str) -> None:
        """As the store does it."""
        self._inner.replace(path, data, e_tag)


def close(future: "Future[Laid]") -> None:
    """Let go of files that nobody took."""
    if future.exception() is None:
        future.result().close()
