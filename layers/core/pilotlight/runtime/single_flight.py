"""Run calls in background threads, at most one for each key, and let any number of requests wait for it.

A request can stop waiting for a load, which would be impossible if the load ran in its own thread; the next request
joins the same load. This module depends on threads and results, not on models.
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
    """One call in a thread. Lambda may freeze it between requests, so no caller may rely on its progress."""

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
        except BaseException as exc:  # noqa: BLE001 - raised again by `result`
            self._error = exc
        finally:
            self._on_end()
            self._done.set()

    def wait_until(self, deadline: float) -> bool:
        """Wait for the end, at most until `deadline` on time.monotonic's clock; return whether the call has ended."""
        timeout = None if deadline == FOREVER else max(0.0, deadline - time.monotonic())
        return self._done.wait(timeout)

    def result(self) -> Result:
        """Return the call's result or raise its error; only to be called once it has ended."""
        if self._error is not None:
            raise self._error.with_traceback(None)  # otherwise each raise would add to its traceback
        return self._result  # type: ignore[return-value]  # it has ended without an error


class SingleFlight(Generic[Key, Result]):
    """Calls by key, each running at most once at a time."""

    def __init__(self, call: Callable[[Key], Result]) -> None:
        self._call = call
        self._running: dict[Key, BackgroundTask[Result]] = {}
        self._lock = threading.Lock()

    def start(self, key: Key) -> BackgroundTask[Result]:
        """Return the running call of the key, or start a new one."""
        with self._lock:
            if key not in self._running:
                self._running[key] = BackgroundTask(lambda: self._call(key), lambda: self._remove(key))
            return self._running[key]

    def find_running(self, key: Key) -> BackgroundTask[Result] | None:
        """Return the running call of the key; None if there is none."""
        with self._lock:
            return self._running.get(key)

    def running(self) -> list[BackgroundTask[Result]]:
        """List the calls that have not ended."""
        with self._lock:
            return list(self._running.values())

    def wait_for_all(self, deadline: float) -> None:
        """Wait for all running calls, at most until `deadline` on time.monotonic's clock."""
        for task in self.running():
            task.wait_until(deadline)

    def _remove(self, key: Key) -> None:
        with self._lock:
            self._running.pop(key, None)


def wait_for_document(read: BackgroundTask[Result], deadline: float, what: str) -> Result:
    """Wait for a document that is being read; `LoadingError` if it has not come by `deadline`."""
    if read.wait_until(deadline):
        return read.result()
    raise LoadingError(f"The store has not said yet what {what} is; try again.", retry_after=1)
