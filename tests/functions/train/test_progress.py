"""What one sees of a training: a bar on a terminal, a line now and then in a log, and how long it will take."""

import io
import re
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

from functions.train.data.split import Splits
from functions.train.errors import DivergedError
from functions.train.models import build
from functions.train.pipeline import create_checkpoint_policy, create_epoch_callback
from functions.train.progress import ProgressReporter, estimate_remaining_s
from functions.train.run_folder import RunFolder
from functions.train.training.interruption import InterruptionMonitor
from functions.train.training.trainer import Trainer, seed_torch, train_model
from functions.train.training.training_history import EpochMetrics
from pilotlight.storage.object_store import open_store
from tests.fakes import Clock
from tests.functions.train.conftest import tiny_recipe

EPOCH = EpochMetrics(1, 0.5, 0.8, 0.4, 0.9, 1e-3, 0.1, examples_per_s=1234.5)


def shown(*, terminal: bool, every_s: float = 0.0) -> str:
    """What three epochs in a stage look like."""
    target = io.StringIO()
    progress = ProgressReporter(Console(file=target, force_terminal=terminal, width=200), every_s)
    with progress.stage("train") as say:
        for number in (1, 2, 3):
            progress.show_epoch(replace(EPOCH, number=number), 3)
        say("3 epochs")
    return target.getvalue()


def test_log_has_plain_lines() -> None:
    lines = shown(terminal=False).splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["epoch", "1/3"], ["epoch", "2/3"], ["epoch", "3/3"]]
    assert lines[3].split()[0] == "train"
    assert lines[3].endswith("s  3 epochs")
    assert "\x1b" not in "".join(lines)


def test_line_has_loss_rate_throughput_and_time_left() -> None:
    first, second, third = (line.strip() for line in shown(terminal=False).splitlines()[:3])
    told = "loss 0.5000, validation 0.4000, accuracy 90.00%, learning rate 1.00e-03, 1,234 examples/s"
    assert first == f"epoch   1/3  {told}"  # one short epoch says nothing of the next
    assert second == f"epoch   2/3  {told}, at most 0 s left"
    assert third == f"epoch   3/3  {told}"


def test_log_is_sparse_but_never_hides_the_last_epoch() -> None:
    lines = shown(terminal=False, every_s=1e9).splitlines()
    assert [line.split()[1] for line in lines if "epoch " in line] == ["1/3", "3/3"]


def test_terminal_has_a_bar() -> None:
    text = shown(terminal=True)
    assert "\x1b" in text
    assert "━" in text
    assert "epoch   3/3" in text
    assert "3 epochs" in text


def test_time_left_is_of_the_recent_epochs() -> None:
    assert estimate_remaining_s([2.0, 4.0], 2, 10) == 24
    assert estimate_remaining_s([100.0, *[1.0] * 20], 21, 31) == 10
    assert estimate_remaining_s([10.0], 0.25, 2) == 17.5
    assert estimate_remaining_s([10.0], 3, 2) == 0


class Ticking(Clock):
    """A clock that goes on whenever it is looked at."""

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def looked_into(splits: Splits, progress: ProgressReporter, spoil: int | None = None) -> None:
    """One epoch of 17 steps under this progress; from step `spoil` on the weights are no numbers."""
    recipe = tiny_recipe("epochs=1")
    journal = RunFolder(open_store("memory://"), recipe, "r")
    keeper = create_checkpoint_policy(journal, "checkpoints", recipe, progress, InterruptionMonitor())
    with seed_torch(0):
        network = build.build_model(recipe.model, splits.train)
    if spoil is not None:
        breaking(network, spoil)
    train_model(network, splits, recipe, create_epoch_callback(recipe, progress, journal), keeper)


def breaking(network: nn.Module, step: int) -> None:
    """Let the network answer with NaN from a step on."""
    calls = 0

    def poison(module: nn.Module, inputs: object, logits: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return logits * torch.nan if calls >= step else logits

    network.register_forward_hook(poison)


def test_long_epoch_is_told_of_before_it_is_over(splits: Splits) -> None:
    target = io.StringIO()
    looked_into(splits, ProgressReporter(Console(file=target, width=200), step_interval_s=4.0, clock=Ticking()))
    lines = [line for line in target.getvalue().splitlines() if " step " in line]
    assert len(lines) >= 3
    for line in lines:
        assert re.fullmatch(
            r"  epoch   1/1  step \d+ of 17, loss \d\.\d{4} so far, learning rate [\d.e-]+, "
            r"[\d,]+ examples/s(, at most .+ left)?",
            line,
        )


def test_long_epoch_on_a_terminal_moves_the_bar(splits: Splits) -> None:
    target = io.StringIO()
    progress = ProgressReporter(Console(file=target, force_terminal=True, width=200), clock=Ticking())
    with progress.stage("train"):
        looked_into(splits, progress)
        told = [task.description for task in progress._bar.tasks]
    assert "epoch   1/1" in told[0]


def test_short_epochs_are_left_alone(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "check_loss", lambda _: pytest.fail("the loss was read"))
    progress = ProgressReporter(Console(file=io.StringIO()), step_interval_s=1e9)
    with pytest.raises(pytest.fail.Exception):  # at the end of the training, by the snapshot
        looked_into(splits, progress)
    assert len(progress._epoch_seconds) == 1


def test_loss_that_is_no_number_ends_a_long_epoch_where_it_is_seen(splits: Splits) -> None:
    progress = ProgressReporter(Console(file=io.StringIO()), step_interval_s=1.0, clock=Ticking())
    with pytest.raises(DivergedError, match=r"epoch 1: training loss nan after step 5; try .* than the 0\.0\d+ there"):
        looked_into(splits, progress, spoil=5)
