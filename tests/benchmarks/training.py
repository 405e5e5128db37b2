"""T1: what our loop costs, against a bare loop of the same model, data and optimiser, in examples per second.

The bare loop is what one writes in ten minutes: no schedule, no gradient norm, no checkpoint, no evaluation. Both train
the digits model of record for an epoch in turn, on one thread.
"""

import time

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from functions.train.data.dataset import Dataset
from functions.train.data.load import load_dataset
from functions.train.data.split import split_dataset
from functions.train.models import build
from functions.train.training.trainer import (
    EpochTotals,
    Trainer,
    compute_learning_rates,
    limit_torch_threads,
    seed_torch,
    unfreeze_gc_on_exit,
)
from pilotlight.recipes.schema import load_recipe
from tests.benchmarks.goal import Measure, interleaved

EPOCHS = 30  # of which the median counts


class Bare:
    """The loop by hand."""

    def __init__(self, network: nn.Module, train: Dataset, batch_size: int, rate: float) -> None:
        self.network, self.batch_size = network, batch_size
        self.optimiser = torch.optim.Adam(network.parameters(), lr=rate)
        self.inputs, self.targets = torch.from_numpy(train.inputs), torch.from_numpy(train.targets)

    def epoch(self) -> None:
        """One pass."""
        self.network.train()
        for indices in torch.split(torch.randperm(len(self.targets)), self.batch_size):
            loss = cross_entropy(self.network(self.inputs[indices]), self.targets[indices])
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward unannotated
            self.optimiser.step()


def measure() -> list[Measure]:
    """Both loops, epoch by epoch in turn."""
    recipe = load_recipe("digits", [f"epochs={2 * EPOCHS}"])
    splits = split_dataset(load_dataset(recipe.data), recipe.data)
    ours = Trainer(build.build_model(recipe.model, splits.train), splits, recipe)
    assert isinstance(recipe.batch_size, int)
    theirs = Bare(build.build_model(recipe.model, splits.train), splits.train, recipe.batch_size, 1e-3)

    def one_of_ours() -> None:
        ours.totals = EpochTotals(ours.train_step.device)
        ours.run_steps(compute_learning_rates(recipe, len(splits.train), 1), time.perf_counter(), lambda _: None)

    sides = {"ours": one_of_ours, "theirs": theirs.epoch}
    with seed_torch(recipe.seed), limit_torch_threads(recipe.threads), unfreeze_gc_on_exit():
        interleaved(sides, 2)  # warm
        seconds = interleaved(sides, EPOCHS)
    speeds = {side: len(splits.train) / taken for side, taken in seconds.items()}
    ratio = speeds["ours"] / speeds["theirs"]
    return [Measure("T1", f"examples/s of the loop, {speeds['ours']:.0f}, / a bare one", ratio, 0.95, least=True)]
