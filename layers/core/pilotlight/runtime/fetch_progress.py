"""How far the fetches of this process are, by version, for callers who are told to wait.

This module is imported before numpy and onnxruntime, and must import neither.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

VersionKey = tuple[str, int]  # name and version
MIN_RATED_SECONDS = 0.5  # s of a fetch before its speed is taken for that of the rest


class FetchProgress:
    """One fetch: the bytes that have arrived and were hashed, of the total. Written by one thread, read by others."""

    def __init__(self, total_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total_bytes = total_bytes
        self.fetched_bytes = 0
        self._clock = clock
        self._started_at = clock()

    def add(self, count: int) -> None:
        """Count `count` more bytes."""
        self.fetched_bytes += count

    def estimate_seconds_left(self) -> float | None:
        """Estimate the time until all bytes are there, at the speed so far; None while that is not known."""
        seconds = self._clock() - self._started_at
        if seconds < MIN_RATED_SECONDS or not self.fetched_bytes:
            return None
        return (self.total_bytes - self.fetched_bytes) * seconds / self.fetched_bytes


class RunningFetches:
    """The fetches whose files are not open yet."""

    def __init__(self) -> None:
        self._progress: dict[VersionKey, FetchProgress] = {}
        self._lock = Lock()

    @contextmanager
    def track(self, key: VersionKey, progress: FetchProgress) -> Iterator[None]:
        """Keep the progress of a version's fetch while its files are there to be opened; the latest one counts."""
        with self._lock:
            self._progress[key] = progress
        try:
            yield
        finally:
            with self._lock:
                if self._progress.get(key) is progress:
                    del self._progress[key]

    def find(self, key: VersionKey) -> FetchProgress | None:
        """Find the progress of a version's fetch; None if none is running."""
        with self._lock:
            return self._progress.get(key)


FETCHES = RunningFetches()
