"""A session that opens at once and runs slowly, until one that runs fast takes its place.

It knows when to change, not what a session is.
"""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from threading import Lock, Thread
from typing import Any

RUNS_BEFORE_PREPACKING = 8  # the fast one takes as long to open as so many runs gain by it (infra/decisions/0017)


class DeferredPrepacking:
    """Called, it gives the session to run on next.

    An environment that answers few requests never pays for the fast session. The slow one is let go of before the fast
    one opens, since both would take twice the memory; who asks meanwhile waits. Lambda may stop the thread between two
    requests: then who asks waits for what is left of it.
    """

    def __init__(self, open_unpacked: Callable[[], Any], open_prepacked: Callable[[], Any]) -> None:
        self._open_unpacked, self._open_prepacked = open_unpacked, open_prepacked
        self.release_files: Callable[[], None] = lambda: None  # called once neither session remains to be opened
        self._run_numbers = count(1)
        self._switch_lock = Lock()  # taken once, by whoever opens the fast session, and never released
        self._current: Future[Any] = Future()
        self._current.set_result(open_unpacked())

    def __call__(self) -> Any:  # noqa: ANN401 - onnxruntime ships no types
        """The session to run on next."""
        if next(self._run_numbers) >= RUNS_BEFORE_PREPACKING and self._switch_lock.acquire(blocking=False):
            Thread(target=self._switch_session, name="two-speeds", daemon=True).start()
        return self._current.result()

    def prepack_now(self) -> None:
        """Have the fast session when this returns: for who has the time now."""
        if self._switch_lock.acquire(blocking=False):
            self._switch_session()
        self._current.result()

    def _switch_session(self) -> None:
        """Open the fast session; where that fails, for want of memory say, the slow one again."""
        future: Future[Any] = Future()
        self._current = future
        try:
            future.set_result(self._open_final())
        except Exception as exc:  # noqa: BLE001 - raised again where the session is asked for
            future.set_exception(exc)

    def _open_final(self) -> Any:  # noqa: ANN401 - onnxruntime ships no types
        """The session that stays; what opening needed is cleared away before anybody gets it."""
        try:
            return self._open_with_fallback()
        finally:
            with suppress(OSError):  # what stays is found by `model_files.create_private_folder` later
                self.release_files()

    def _open_with_fallback(self) -> Any:  # noqa: ANN401 - onnxruntime ships no types
        try:
            return self._open_prepacked()
        except Exception:  # noqa: BLE001 - slower is better than not at all
            return self._open_unpacked()
