"""Whether this process should save and stop: after SIGTERM, or at the end of its time budget.

The signal handler only sets a flag. The code that reads it, at a boundary of its choice, decides what to save.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from functions.train.errors import PausedError

STOP_GRACE_S = 100.0  # from SIGTERM to SIGKILL: ECS waits 110 s by its setting, Spot gives 120 s


class InterruptionMonitor:
    """A request to stop, by SIGTERM or by the clock."""

    def __init__(self, budget_s: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._budget_s = clock, budget_s
        self._started = clock()
        self._signalled_at: float | None = None
        self._has_progressed = False

    @property
    def reason(self) -> str | None:
        """The reason to stop, as the start of a sentence; None while there is none."""
        if self._signalled_at is not None:
            return "Stopped by SIGTERM"
        if self._has_progressed and self._budget_s is not None and self._clock() - self._started >= self._budget_s:
            return f"Stopped at the end of the time budget of {self._budget_s:g} s"
        return None

    @property
    def grace_left_s(self) -> float | None:
        """The seconds until SIGKILL may follow SIGTERM; None while there was none."""
        return None if self._signalled_at is None else self._signalled_at + STOP_GRACE_S - self._clock()

    def note_progress(self) -> None:
        """Note that the run progressed; the time budget ends no run before that, or a short one would allow none."""
        self._has_progressed = True

    def raise_if_interrupted(self) -> None:
        """Raise `PausedError` when there is a reason to stop, at a boundary at which nothing needs to be saved."""
        if reason := self.reason:
            raise PausedError(f"{reason}; start the same run again, and it goes on.")

    @contextmanager
    def handle_sigterm(self) -> Iterator[None]:
        """Handle SIGTERM as a request to stop, inside."""
        before = signal.signal(signal.SIGTERM, self._on_sigterm)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _on_sigterm(self, signal_number: int, frame: FrameType | None) -> None:
        if self._signalled_at is None:
            self._signalled_at = self._clock()
