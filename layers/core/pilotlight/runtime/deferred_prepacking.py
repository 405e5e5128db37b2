"""Replace a session that opens quickly but runs slowly by one that runs fast.

This module decides when to switch; it does not depend on what a session is.
"""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from threading import Lock, Thread
from typing import Any

RUNS_BEFORE_PREPACKING = 8  # opening the fast session takes as long as this many runs gain by it (infra/decisions/0017)


class DeferredPrepacking:
    """A callable that returns the session for the next run.

    An environment that answers few requests never pays for the fast session. The slow one is released before the fast
    one opens, since both would take twice the memory; runs wait meanwhile. Lambda may freeze the thread between two
    requests: then the next run waits for the rest of its work.
    """

    def __init__(self, open_unpacked: Callable[[], Any], open_prepacked: Callable[[], Any]) -> None:
        self._open_unpacked, self._open_prepacked = open_unpacked, open_prepacked
        self.release_files: Callable[[], None] = lambda: None  # called once no session remains to be opened
        self._run_numbers = count(1)
        self._switch_lock = Lock()  # taken once, by the thread that opens the fast session, and never released
        self._current: Future[Any] = Future()
        self._current.set_result(open_unpacked())

    def __call__(self) -> Any:  # noqa: ANN401 - onnxruntime ships no types
        """Return the session for the next run; at run `RUNS_BEFORE_PREPACKING`, start to open the fast one."""
        if next(self._run_numbers) >= RUNS_BEFORE_PREPACKING and self._switch_lock.acquire(blocking=False):
            Thread(target=self._switch_session, name="two-speeds", daemon=True).start()
        return self._current.result()

    def prepack_now(self) -> None:
        """Open the fast session now and wait for it, where there is time for that."""
        if self._switch_lock.acquire(blocking=False):
            self._switch_session()
        self._current.result()

    def _switch_session(self) -> None:
        """Open the fast session; if that fails, for lack of memory for example, open the slow one again."""
        future: Future[Any] = Future()
        self._current = future
        try:
            future.set_result(self._open_final())
        except Exception as exc:  # noqa: BLE001 - raised again by the next run
            future.set_exception(exc)

    def _open_final(self) -> Any:  # noqa: ANN401 - onnxruntime ships no types
        """Open the session that stays, and release its files before the first run on it."""
        try:
            return self._open_with_fallback()
        finally:
            with suppress(OSError):  # `model_files.create_private_folder` removes leftovers later
                self.release_files()

    def _open_with_fallback(self) -> Any:  # noqa: ANN401 - onnxruntime ships no types
        try:
            return self._open_prepacked()
        except Exception:  # noqa: BLE001 - a slow session is better than none
            return self._open_unpacked()
