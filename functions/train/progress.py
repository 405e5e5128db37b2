"""How a run tells a person what it does: a live line on a terminal, plain lines in a log, always on its console.

It knows stages and epochs by their words and numbers only, and keeps the seconds of each stage.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.status import Status

from functions.train.loop import Epoch

Say = Callable[[str], None]


class Progress:
    """Shows stages as they end, each with its seconds and its result, and epochs as they pass."""

    def __init__(self, console: Console, every_s: float = 2.0, before: Callable[[], None] = lambda: None) -> None:
        self.console = console
        self.before = before  # each stage: may end the run by raising
        self.every_s = every_s  # between two plain lines on epochs
        self.seconds: dict[str, float] = {}
        self._status = Status("", console=console)
        self._spoke = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[Say]:
        """Run a stage; what is said inside it is its result."""
        self.before()
        said: list[str] = []
        started = time.perf_counter()
        with self._live(name):
            yield said.append
        self.seconds[name] = time.perf_counter() - started
        self.show(f"{name:<9}{self.seconds[name]:6.1f} s  {'; '.join(said)}")

    def epoch(self, epoch: Epoch, of: int) -> None:
        """Show an epoch: at once on a terminal, in a log the last one and one every few seconds."""
        line = (
            f"epoch {epoch.number:>3}/{of}  loss {epoch.train_loss:.4f}, validation {epoch.validation_loss:.4f}, "
            f"{epoch.metric} {epoch.validation_accuracy:.2%}, learning rate {epoch.learning_rate:.2e}, "
            f"{epoch.examples_per_s:,.0f} examples/s{'' if epoch.mfu is None else f', MFU {epoch.mfu:.1%}'}"
        )
        if self.console.is_terminal:
            self._status.update(line)
        elif epoch.number == of or time.monotonic() - self._spoke >= self.every_s:
            self._spoke = time.monotonic()
            self.show("  " + line)

    def show(self, what: RenderableType) -> None:
        """Show a line or a table."""
        self.console.print(what, highlight=False, soft_wrap=isinstance(what, str))

    @contextmanager
    def _live(self, name: str) -> Iterator[None]:
        if not self.console.is_terminal:
            yield
            return
        self._status.update(name)
        with self._status:
            yield
