"""Show how far a long step has come: beside a spinner on a terminal, in a line from time to time otherwise."""

import time
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from functions.train.convert.progress_lines import CONSOLE, show_line

if TYPE_CHECKING:
    from rich.status import Status

SECONDS_BETWEEN_LINES = 10.0


class ProgressLine:
    """A step of the work, called with where it is: `with ProgressLine("Writing") as line: line("layer 3 of 30")`."""

    def __init__(self, step: str) -> None:
        """Keep the name of the step."""
        self._step = step
        self._stack = ExitStack()
        self._status: Status | None = None
        self._last_line = 0.0

    def __enter__(self) -> Self:
        """Say that the step has begun."""
        if CONSOLE.is_terminal:
            self._status = self._stack.enter_context(CONSOLE.status(self._step))
        else:
            show_line(f"{self._step} ...")
        self._last_line = time.monotonic()
        return self

    def __call__(self, place: str) -> None:
        """Say how far it is."""
        if self._status is not None:
            self._status.update(f"{self._step}: {place}")
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            show_line(f"{self._step}: {place}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the spinner."""
        self._stack.close()
