"""The progress of a run on its console: a bar on a terminal, plain lines in a log.

It also measures the seconds of each stage.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean

from rich.console import Console, RenderableType
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from functions.train.training.trainer import Trainer
from functions.train.training.training_history import EpochMetrics
from pilotlight.contracts.metric import format_value
from pilotlight.training_runs.run_store import format_duration

WriteResult = Callable[[str], None]
WARM_UP_S = 10.0  # a single, shorter epoch does not predict the next, since it includes the warm-up
RECENT_EPOCHS = 20  # epochs that the time left is reckoned from: a machine may have become busier since


class ProgressReporter:
    """Shows stages as they end, each with its seconds and its result, and epochs as they pass."""

    def __init__(
        self,
        console: Console,
        line_interval_s: float = 2.0,
        before_stage: Callable[[], None] = lambda: None,
        step_interval_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console
        self.before_stage = before_stage  # each stage: may end the run by raising
        self.line_interval_s = line_interval_s  # between two plain lines on epochs
        self.step_interval_s = (
            0.5 if console.is_terminal else step_interval_s
        )  # between two lines on an epoch that takes longer
        self.stage_seconds: dict[str, float] = {}
        self._clock, self._last_line_at, self._last_update_at = clock, float("-inf"), clock()
        self._epoch_seconds: list[float] = []  # seconds of each epoch since this process started
        self._bar, self._task = create_progress_bar(console), TaskID(0)

    @contextmanager
    def stage(self, name: str) -> Iterator[WriteResult]:
        """Run a stage; what is written inside it is its result."""
        self.before_stage()
        results: list[str] = []
        started = time.perf_counter()
        with self._show_bar(name):
            yield results.append
        self.stage_seconds[name] = time.perf_counter() - started
        self.show(f"{name:<9}{self.stage_seconds[name]:6.1f} s  {'; '.join(results)}")

    def show_epoch(self, epoch: EpochMetrics, total_epochs: int) -> float:
        """Show an epoch: at once on a terminal, in a log the last one and one every few seconds.

        Return the seconds that the other epochs will take, without early stopping.
        """
        self._epoch_seconds = [*(self._epoch_seconds if epoch.number > 1 else []), epoch.seconds]
        left = estimate_remaining_s(self._epoch_seconds, epoch.number, total_epochs)
        time_left = format_time_left(left) if len(self._epoch_seconds) > 1 or epoch.seconds > WARM_UP_S else ""
        line = (
            f"epoch {epoch.number:>3}/{total_epochs}  loss {epoch.train_loss:.4f}, validation "
            f"{epoch.validation_loss:.4f}, "
            f"{epoch.metric} {format_value(epoch.metric, epoch.validation_accuracy)}, {format_monitored(epoch)}"
            f"learning rate {epoch.learning_rate:.2e}, {format_speed(epoch.examples_per_s, epoch.tokens_per_s)}"
            f"{'' if epoch.mfu is None else f', MFU {epoch.mfu:.1%}'}{time_left}"
        )
        self._last_update_at = self._clock()
        if self.console.is_terminal:
            self._bar.update(self._task, description=line, completed=epoch.number, total=total_epochs)
        elif epoch.number == total_epochs or self._last_update_at - self._last_line_at >= self.line_interval_s:
            self._write_line("  " + line)
        return left

    def show_step(self, trainer: Trainer, total_epochs: int) -> None:
        """Show progress inside a long epoch, now and then: reading the loss waits for the device.

        Raise `DivergedError` when it is not a number any more.
        """
        if self._clock() - self._last_update_at < self.step_interval_s:
            return
        self._last_update_at = self._clock()
        trainer.check_loss()
        done, share = len(trainer.epochs), trainer.totals.batch_count / len(trainer.batch_sizes)
        seconds = [epoch.seconds for epoch in trainer.epochs] or [trainer.totals.seconds / share]
        examples, passed = sum(trainer.batch_sizes[: trainer.totals.batch_count]), trainer.totals.seconds
        answers = examples * trainer.targets_per_example
        line = (
            f"epoch {done + 1:>3}/{total_epochs}  step {trainer.totals.batch_count:,} of {len(trainer.batch_sizes):,}, "
            f"loss {float(trainer.totals.sums['loss']) / answers:.4f} so far, learning rate "
            f"{trainer.learning_rate:.2e}, "
            f"{format_speed(examples / passed, answers / passed if answers > examples else 0)}"
            f"{format_time_left(estimate_remaining_s(seconds, done + share, total_epochs))}"
        )
        if self.console.is_terminal:
            self._bar.update(self._task, description=line, completed=done + share, total=total_epochs)
        else:
            self._write_line("  " + line)

    def show(self, what: RenderableType) -> None:
        """Show a line or a table."""
        self.console.print(what, highlight=False, soft_wrap=isinstance(what, str))

    def _write_line(self, line: str) -> None:
        self._last_line_at = self._clock()
        self.show(line)

    @contextmanager
    def _show_bar(self, name: str) -> Iterator[None]:
        if not self.console.is_terminal:
            yield
            return
        self._bar = create_progress_bar(self.console)
        self._task = self._bar.add_task(name, total=None)
        with self._bar:
            yield


def format_monitored(epoch: EpochMetrics) -> str:
    """Format what early stopping goes by, where that is neither the loss nor shown already."""
    name, value = epoch.monitored, epoch.monitored_value
    return "" if value is None or name == epoch.metric else f"{name} {format_value(name, value)}, "


def create_progress_bar(console: Console) -> Bar:
    """Create a spinner, a bar that fills once the total is known, and a text; it disappears when its stage is over."""
    columns = SpinnerColumn(), BarColumn(bar_width=16), TextColumn("{task.description}", markup=False)
    return Bar(*columns, console=console, transient=True)


def estimate_remaining_s(seconds: Sequence[float], epochs_done: float, total_epochs: int) -> float:
    """Estimate the seconds left after `epochs_done` epochs, from the seconds of the last ones."""
    return max(0.0, total_epochs - epochs_done) * fmean(seconds[-RECENT_EPOCHS:])


def format_time_left(seconds: float) -> str:
    """Format the time left; empty where there is none."""
    return f", at most {format_duration(seconds)} left" if seconds else ""


def format_speed(examples_per_s: float, tokens_per_s: float) -> str:
    """Format the speed, in tokens where the data has them, and otherwise in examples."""
    return f"{tokens_per_s:,.0f} tokens/s" if tokens_per_s else f"{examples_per_s:,.0f} examples/s"
