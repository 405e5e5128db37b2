"""Loads under way: each in a thread of its own, started once, and awaited by as many as need it.

A request can stop waiting for a load, which it could not if it loaded itself; the next request finds the load where it
is. It knows threads and results, not models.
"""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from pilotlight.errors import LoadingError

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")
FOREVER = float("inf")


class BackgroundTask(Generic[Result]):
    """One call in a thread. The machine may freeze between requests, so that nobody may rely on its progress."""

    def __init__(self, call: Callable[[], Result], on_end: Callable[[], None]) -> None:
        self.started_at = time.monotonic()  # s
        self._call, self._on_end = call, on_end
        self._done = threading.Event()
        self._result: Result | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, daemon=True, name="pilotlight-load").start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as exc:  # noqa: BLE001 - raised again by whoever waits
            self._error = exc
        finally:
            self._on_end()
            self._done.set()

    def wait_until(self, deadline: float) -> bool:
        """Wait until it has ended, at most until `deadline` on time.monotonic's clock; whether it has."""
        timeout = None if deadline == FOREVER else max(0.0, deadline - time.monotonic())
        return self._done.wait(timeout)

    def result(self) -> Result:
        """What the call gave, or raise what it raised; only once it has ended."""
        if self._error is not None:
            raise self._error.with_traceback(None)  # otherwise each raise would add to its traceback
        return self._result  # type: ignore[return-value]  # it has ended without an error


class SingleFlight(Generic[Key, Result]):
    """Loads by key, none of them twice at a time."""

    def __init__(self, call: Callable[[Key], Result]) -> None:
        self._call = call
        self._running: dict[Key, BackgroundTask[Result]] = {}
        self._lock = threading.Lock()

    def start(self, key: Key) -> BackgroundTask[Result]:
        """The load of that key: the one under way, else a new one."""
        with self._lock:
            if key not in self._running:
                self._running[key] = BackgroundTask(lambda: self._call(key), lambda: self._remove(key))
            return self._running[key]

    def find_running(self, key: Key) -> BackgroundTask[Result] | None:
        """The load of that key, if one is under way."""
        with self._lock:
            return self._running.get(key)

    def running(self) -> list[BackgroundTask[Result]]:
        """Those that have not ended."""
        with self._lock:
            return list(self._running.values())

    def wait_for_all(self, deadline: float) -> None:
        """Wait for those that have not ended, at most until `deadline` on time.monotonic's clock."""
        for task in self.running():
            task.wait_until(deadline)

    def _remove(self, key: Key) -> None:
        with self._lock:
            self._running.pop(key, None)


def wait_for_document(read: BackgroundTask[Result], deadline: float, what: str) -> Result:
    """Return the document of the store that is being read; `LoadingError` if it does not come until `deadline`."""
    if read.wait_until(deadline):
        return read.result()
    raise LoadingError(f"The store has not said yet what {what} is; try again.", retry_after=1)
