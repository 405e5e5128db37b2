"""How a run tells a person what it does: a bar on a terminal, plain lines in a log, always on its console.

It knows stages, and of a training its epochs and how far the running one is; it keeps the seconds of each stage.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean

from rich.console import Console, RenderableType
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from functions.train.evaluation.metrics import shown
from functions.train.training.epoch import Epoch
from functions.train.training.trainer import Trainer
from pilotlight.training_runs.run_store import duration

Say = Callable[[str], None]
WARM_S = 10.0  # a single, shorter epoch says nothing of the next, since it includes the warm-up
RECENT = 20  # epochs that the time left is reckoned from: a machine may have become busier since


class Progress:
    """Shows stages as they end, each with its seconds and its result, and epochs as they pass."""

    def __init__(
        self,
        console: Console,
        every_s: float = 2.0,
        before: Callable[[], None] = lambda: None,
        within_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console
        self.before = before  # each stage: may end the run by raising
        self.every_s = every_s  # between two plain lines on epochs
        self.within_s = 0.5 if console.is_terminal else within_s  # between two looks into an epoch that takes longer
        self.seconds: dict[str, float] = {}
        self._clock, self._spoke, self._looked = clock, float("-inf"), clock()
        self._epochs: list[float] = []  # seconds of each that passed in this life
        self._bar, self._task = bar(console), TaskID(0)

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

    def epoch(self, epoch: Epoch, of: int) -> float:
        """Show an epoch: at once on a terminal, in a log the last one and one every few seconds.

        Gives the seconds that the others take, if none is spared by stopping early.
        """
        self._epochs = [*(self._epochs if epoch.number > 1 else []), epoch.seconds]
        left = remaining(self._epochs, epoch.number, of)
        told = at_most(left) if len(self._epochs) > 1 or epoch.seconds > WARM_S else ""
        line = (
            f"epoch {epoch.number:>3}/{of}  loss {epoch.train_loss:.4f}, validation {epoch.validation_loss:.4f}, "
            f"{epoch.metric} {shown(epoch.metric, epoch.validation_accuracy)}, "
            f"learning rate {epoch.learning_rate:.2e}, {speed(epoch.examples_per_s, epoch.tokens_per_s)}"
            f"{'' if epoch.mfu is None else f', MFU {epoch.mfu:.1%}'}{told}"
        )
        self._looked = self._clock()
        if self.console.is_terminal:
            self._bar.update(self._task, description=line, completed=epoch.number, total=of)
        elif epoch.number == of or self._looked - self._spoke >= self.every_s:
            self._say("  " + line)
        return left

    def step(self, trainer: Trainer, of: int) -> None:
        """Look into an epoch that takes long, now and then: reading the loss waits for the device.

        `DivergedError` when it is no number any more.
        """
        if self._clock() - self._looked < self.within_s:
            return
        self._looked = self._clock()
        trainer.check()
        done, share = len(trainer.epochs), trainer.tally.batches / len(trainer.sizes)
        seconds = [epoch.seconds for epoch in trainer.epochs] or [trainer.tally.seconds / share]
        examples, passed = sum(trainer.sizes[: trainer.tally.batches]), trainer.tally.seconds
        answers = examples * trainer.each
        line = (
            f"epoch {done + 1:>3}/{of}  step {trainer.tally.batches:,} of {len(trainer.sizes):,}, "
            f"loss {float(trainer.tally.sums['loss']) / answers:.4f} so far, learning rate {trainer.rate:.2e}, "
            f"{speed(examples / passed, answers / passed if answers > examples else 0)}"
            f"{at_most(remaining(seconds, done + share, of))}"
        )
        if self.console.is_terminal:
            self._bar.update(self._task, description=line, completed=done + share, total=of)
        else:
            self._say("  " + line)

    def show(self, what: RenderableType) -> None:
        """Show a line or a table."""
        self.console.print(what, highlight=False, soft_wrap=isinstance(what, str))

    def _say(self, line: str) -> None:
        self._spoke = self._clock()
        self.show(line)

    @contextmanager
    def _live(self, name: str) -> Iterator[None]:
        if not self.console.is_terminal:
            yield
            return
        self._bar = bar(self.console)
        self._task = self._bar.add_task(name, total=None)
        with self._bar:
            yield


def bar(console: Console) -> Bar:
    """A spinner, a bar that fills once it is known of how much, and words; gone when its stage is over."""
    columns = SpinnerColumn(), BarColumn(bar_width=16), TextColumn("{task.description}", markup=False)
    return Bar(*columns, console=console, transient=True)


def remaining(seconds: Sequence[float], done: float, of: int) -> float:
    """The seconds that are left when `done` of so many epochs are over and the last ones took that long."""
    return max(0.0, of - done) * fmean(seconds[-RECENT:])


def at_most(seconds: float) -> str:
    """The time left in words; nothing where it is nothing."""
    return f", at most {duration(seconds)} left" if seconds else ""


def speed(examples_per_s: float, tokens_per_s: float) -> str:
    """A pace, in what the data counts: tokens, where there are any."""
    return f"{tokens_per_s:,.0f} tokens/s" if tokens_per_s else f"{examples_per_s:,.0f} examples/s"
