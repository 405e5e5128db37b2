"""A store of which some documents and files were read in advance.

It returns each of them once, and raises errors of the prefetch on that read; `prefetch` starts the reads.
"""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from threading import Event

from pilotlight.runtime.model_files import ModelFiles
from pilotlight.storage.object_store import ObjectStore, StoredObject


class PrefetchedStore(ObjectStore):
    """An inner store with its prefetched documents, valid for `max_age_seconds`, and files."""

    def __init__(self, inner: ObjectStore, max_age_seconds: float) -> None:
        super().__init__(inner.url, inner._store, inner.address)
        self._inner = inner
        self._max_age_seconds = max_age_seconds
        self._documents: dict[str, tuple[Future[StoredObject], float]] = {}  # with the time when it was read
        self._files: dict[tuple[str, int], Future[ModelFiles]] = {}
        self._resolved_events: dict[str, Event] = {}  # by the folder of a model

    def block_until_resolved(self, name: str) -> Event:
        """Make reads of a model's documents wait until the returned event is set."""
        return self._resolved_events.setdefault(f"models/{name}/", Event())

    def prefetch_document(self, path: str) -> StoredObject:
        """Read a document from the store and keep it, or the error, for the next `get`."""
        future: Future[StoredObject] = Future()
        self._documents[path] = future, time.monotonic()
        try:
            future.set_result(self._inner.get(path))
        except Exception as exc:
            future.set_exception(exc)
            raise
        return future.result()

    def expect_files(self, name: str, version: int) -> Future[ModelFiles]:
        """Return the future for the files of a version that are being fetched."""
        return self._files.setdefault((name, version), Future())

    def take_prefetched_files(self, name: str, version: int) -> ModelFiles | None:
        """Wait for the files of a version if they are expected, and return them once; release those of other versions.

        Raises the error of the fetch.
        """
        for key in [key for key in self._files if key[0] == name and key[1] != version]:
            self._files.pop(key).add_done_callback(close_prefetched_files)
        future = self._files.pop((name, version), None)
        return future.result() if future else None

    def get(self, path: str) -> StoredObject:
        """Return the whole object; one prefetched within `max_age_seconds` is returned once without a new read."""
        for folder, resolved in self._resolved_events.items():
            if path.startswith(folder):
                resolved.wait()
        future, read_at = self._documents.pop(path, (None, 0.0))
        if future is not None and time.monotonic() - read_at < self._max_age_seconds:
            return future.result()
        return self._inner.get(path)

    def stream(self, path: str, chunk_bytes: int = 8 << 20) -> Iterator[memoryview]:
        """Stream an object from the inner store."""
        return self._inner.stream(path, chunk_bytes)

    def copy_range(self, path: str, fd: int, start: int, end: int) -> int:
        """Copy a range of an object from the inner store."""
        return self._inner.copy_range(path, fd, start, end)

    def stream_range(self, path: str, start: int, end: int) -> Iterator[memoryview]:
        """Stream a range of an object from the inner store."""
        return self._inner.stream_range(path, start, end)

    def replace(self, path: str, data: bytes, e_tag: str) -> None:
        """Replace an object in the inner store."""
        self._inner.replace(path, data, e_tag)


def close_prefetched_files(future: Future[ModelFiles]) -> None:
    """Release files that were not taken."""
    if future.exception() is None:
        future.result().close()
