"""A store of which some things were read before anybody asked for them.

It hands out each of them once, and whatever went wrong as if it had gone wrong now; it does not read ahead itself.
"""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from threading import Event

from pilotlight.runtime.model_files import ModelFiles
from pilotlight.storage.object_store import ObjectStore, StoredObject


class PrefetchedStore(ObjectStore):
    """Another store, with what was read from it already; a document counts as read for `max_age_seconds`."""

    def __init__(self, inner: ObjectStore, max_age_seconds: float) -> None:
        super().__init__(inner.url, inner._store, inner.address)
        self._inner = inner
        self._max_age_seconds = max_age_seconds
        self._documents: dict[str, tuple[Future[StoredObject], float]] = {}  # with the time when it was read
        self._files: dict[tuple[str, int], Future[ModelFiles]] = {}
        self._resolved_events: dict[str, Event] = {}  # by the folder of a model

    def block_until_resolved(self, name: str) -> Event:
        """Have reads of a model's documents wait until the event is set."""
        return self._resolved_events.setdefault(f"models/{name}/", Event())

    def prefetch_document(self, path: str) -> StoredObject:
        """A document from the store, kept for who asks next; errors are kept too."""
        future: Future[StoredObject] = Future()
        self._documents[path] = future, time.monotonic()
        try:
            future.set_result(self._inner.get(path))
        except Exception as exc:
            future.set_exception(exc)
            raise
        return future.result()

    def expect_files(self, name: str, version: int) -> Future[ModelFiles]:
        """The files of a version are on their way."""
        return self._files.setdefault((name, version), Future())

    def take_prefetched_files(self, name: str, version: int) -> ModelFiles | None:
        """The files of a version if they were expected, once; other versions of the model are let go of.

        Waits for them. Raises what fetching them raised.
        """
        for key in [key for key in self._files if key[0] == name and key[1] != version]:
            self._files.pop(key).add_done_callback(close_prefetched_files)
        future = self._files.pop((name, version), None)
        return future.result() if future else None

    def get(self, path: str) -> StoredObject:
        """The whole object; what was read less than `max_age_seconds` ago is not read again the first time."""
        for folder, resolved in self._resolved_events.items():
            if path.startswith(folder):
                resolved.wait()
        future, read_at = self._documents.pop(path, (None, 0.0))
        if future is not None and time.monotonic() - read_at < self._max_age_seconds:
            return future.result()
        return self._inner.get(path)

    def stream(self, path: str, chunk_bytes: int = 8 << 20) -> Iterator[memoryview]:
        """As the store does it."""
        return self._inner.stream(path, chunk_bytes)

    def copy_range(self, path: str, fd: int, start: int, end: int) -> int:
        """As the store does it."""
        return self._inner.copy_range(path, fd, start, end)

    def stream_range(self, path: str, start: int, end: int) -> Iterator[memoryview]:
        """As the store does it."""
        return self._inner.stream_range(path, start, end)

    def replace(self, path: str, data: bytes, e_tag: str) -> None:
        """As the store does it."""
        self._inner.replace(path, data, e_tag)


def close_prefetched_files(future: Future[ModelFiles]) -> None:
    """Let go of files that nobody took."""
    if future.exception() is None:
        future.result().close()
