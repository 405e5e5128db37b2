"""A session that opens at once and runs slowly, until one that runs fast takes its place.

It knows when to change, not what a session is.
"""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from threading import Lock, Thread
from typing import Any

RUNS_BEFORE_CHANGE = 8  # the fast one takes as long to open as so many runs gain by it (infra/decisions/0018)


class TwoSpeeds:
    """Called, it gives the session to run on next.

    An environment that answers few requests never pays for the fast session. The slow one is let go of before the fast
    one opens, since both would take twice the memory; who asks meanwhile waits. Lambda may stop the thread between two
    requests: then who asks waits for what is left of it.
    """

    def __init__(self, slow: Callable[[], Any], fast: Callable[[], Any]) -> None:
        self._slow, self._fast = slow, fast
        self.done: Callable[[], None] = lambda: None  # called once neither session remains to be opened
        self._asked = count(1)
        self._changed = Lock()  # taken once, by whoever opens the fast session, and never released
        self._current: Future[Any] = Future()
        self._current.set_result(slow())

    def __call__(self) -> Any:  # noqa: ANN401 - onnxruntime ships no types
        """The session to run on next."""
        if next(self._asked) >= RUNS_BEFORE_CHANGE and self._changed.acquire(blocking=False):
            Thread(target=self._change, name="two-speeds", daemon=True).start()
        return self._current.result()

    def settle(self) -> None:
        """Have the fast session when this returns: for who has the time now."""
        if self._changed.acquire(blocking=False):
            self._change()
        self._current.result()

    def _change(self) -> None:
        """Open the fast session; where that fails, for want of memory say, the slow one again."""
        later: Future[Any] = Future()
        self._current = later
        try:
            later.set_result(self._last())
        except Exception as exc:  # noqa: BLE001 - raised again where the session is asked for
            later.set_exception(exc)

    def _last(self) -> Any:  # noqa: ANN401 - onnxruntime ships no types
        """The session that stays; what opening needed is cleared away before anybody gets it."""
        try:
            return self._either()
        finally:
            with suppress(OSError):  # files that cannot be removed now are found by `files.private_folder` later
                self.done()

    def _either(self) -> Any:  # noqa: ANN401 - onnxruntime ships no types
        try:
            return self._fast()
        except Exception:  # noqa: BLE001 - slower is better than not at all
            return self._slow()
