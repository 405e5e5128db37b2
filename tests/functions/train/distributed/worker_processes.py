"""One of several processes that train together, for test_parallel.

    python -m tests.functions.train.distributed.worker_processes FOLDER

The lead leaves the weights of each training in the folder; of some also those of one that was taken apart on the way.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from functions.train.data.dataset import Dataset
from functions.train.data.load import load_dataset
from functions.train.data.split import Splits, split_dataset
from functions.train.distributed.launcher import end_process
from functions.train.distributed.process_group import SINGLE_PROCESS, ProcessGroup, join_process_group
from functions.train.errors import PausedError
from functions.train.models import build
from functions.train.training.prediction import evaluate_network
from functions.train.training.trainer import limit_torch_threads, seed_torch, train_model
from tests.functions.train.conftest import tiny_recipe
from tests.functions.train.training.test_checkpoint import StopAt

EXAMPLES = 301  # in batches of 64 the last one has 45, an odd number; in batches of 60 one is left over
DRY = "model.dropout=0"  # processes drop each their own
PLAIN = "model={architecture: mlp, hidden: [16]}"  # accumulation shows a batch normalisation the parts
SLICED = "distributed.strategy=fsdp"
WEIGHTED = "loss={name: cross_entropy, label_smoothing: 0.1, class_weights: balanced}"
WAYS = {
    "adam": (DRY, "optimiser={name: adam, learning_rate: 0.01}"),
    "left over": (DRY, "batch_size=60", "optimiser={name: momentum, learning_rate: 0.1}"),
    "full": (DRY, "batch_size=full", "optimiser={name: gd, learning_rate: 0.1}"),
    "weighted": (PLAIN, WEIGHTED, "accumulation=3"),
    "clipped": (DRY, "clip_norm=0.1", "ema=0.9", "optimiser={name: adamw, learning_rate: 0.01, weight_decay: 0.1}"),
    "sliced": (DRY, SLICED, "ema=0.9", "optimiser={name: adamw, learning_rate: 0.01}"),
    "sliced, clipped": (PLAIN, SLICED, WEIGHTED, "clip_norm=0.1", "accumulation=2"),
    "dropped": ("model.dropout=0.5", "ema=0.9"),
}
BROKEN = ("dropped", "sliced")  # taken apart at step 7 of 10, too
STEP = 7


def few() -> Splits:
    """The digits, with few of them to train on."""
    options = tiny_recipe().data
    splits = split_dataset(load_dataset(options), options)
    return replace(splits, train=splits.train.select(np.arange(EXAMPLES)))


def trained(
    name: str, splits: Splits, world: ProcessGroup = SINGLE_PROCESS, keeper: StopAt | None = None
) -> dict[str, torch.Tensor]:
    """The weights of a training."""
    recipe = tiny_recipe(*WAYS[name])
    with seed_torch(recipe.seed):
        network = build.build_model(recipe.model, splits.train)
    train_model(network, splits, recipe, lambda _: None, keeper, world)
    return dict(network.state_dict())


def broken(name: str, splits: Splits, world: ProcessGroup) -> dict[str, torch.Tensor]:
    """The weights of a training that was taken apart into a snapshot and put together again."""
    first = StopAt(STEP)
    try:
        trained(name, splits, world, first)
    except PausedError:
        return trained(name, splits, world, StopAt(-1, first.kept))
    raise AssertionError(name)


CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def scored(world: ProcessGroup = SINGLE_PROCESS) -> dict[str, dict[str, float]]:
    """The scores of models on sets of sizes that two processes cannot share evenly, and of more batches than one."""
    with seed_torch(2):
        network, line = nn.Linear(6, 10), nn.Linear(6, 1)
    random, found = np.random.default_rng(4), {}
    for examples in (1, 2, 5, 1025, 4099):
        inputs = random.normal(size=(examples, 6)).astype(np.float32)
        data = Dataset(inputs, random.integers(0, 10, examples), CLASSES)
        score = evaluate_network(network, data, None, world)
        found[f"classes {examples}"] = score.metrics | score.per_class
        numbers = Dataset(inputs, (1000 + random.normal(size=(examples, 1))).astype(np.float32), ())
        found[f"numbers {examples}"] = evaluate_network(line, numbers, None, world).metrics
    return found


def work(folder: Path) -> None:
    """All trainings, one after the other."""
    with limit_torch_threads(1), join_process_group() as world:
        splits = few()
        found = {name: trained(name, splits, world) for name in WAYS}
        found |= {f"{name}, broken": broken(name, splits, world) for name in BROKEN}
        (folder / f"scores-{world.rank}.json").write_text(json.dumps(scored(world)))
        if world.is_main:
            for name, weights in found.items():
                save_file(weights, folder / f"{name}.safetensors")


if __name__ == "__main__":
    work(Path(sys.argv[1]))
    end_process(0)
