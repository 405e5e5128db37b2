"""Run a network in evaluation mode, batch by batch: its outputs are never held all at once unless they are asked for.

Evaluation is always in fp32, with TF32 off (torch's default), whatever precision trains: the graph that is exported and
served is fp32, and early stopping compares what is served. Several processes evaluate a part of each batch each, and
add up their totals.
"""

from collections.abc import Collection, Iterator

import numpy as np
import torch
from torch import nn

from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.data.pixels import VALUES_AT_ONCE, VALUES_ON_GPU, Inputs, Pixels, count_images_at_once
from functions.train.data.statistics import Moments
from functions.train.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from functions.train.evaluation.score import Score
from functions.train.evaluation.totals import build_totals
from functions.train.training.device import get_model_device

CPU = torch.device("cpu")
MAX_TARGETS_AT_ONCE = 1024  # answers that are computed at once


def predict_outputs(model: nn.Module, inputs: Inputs, batch_size: int | None = None) -> Array:
    """Predict outputs, (N, classes) or (N, T, tokens), for raw inputs like those of a `Dataset`, in evaluation mode.

    Unless a batch size is given, a batch has 1,024 targets, or one window of tokens. All outputs are held in memory.
    """
    size = batch_size or choose_batch_size(inputs, get_model_device(model))
    starts = range(0, len(inputs), size)
    return np.concatenate([run_network(model, inputs[start : start + size]).cpu().numpy() for start in starts])


def evaluate_network(
    model: nn.Module,
    data: Dataset,
    names: Collection[str] | None = None,
    process_group: ProcessGroup = SINGLE_PROCESS,
    unit: Moments | None = None,
) -> Score:
    """Score the network on all of a data set, with memory for one batch of outputs; see `totals.build_totals`."""
    totals = build_totals(data, names, unit)
    for start, stop in share_examples(
        len(data), choose_batch_size(data.inputs, get_model_device(model)), process_group
    ):
        rows = slice(start, max(stop, start + 1))  # with nothing to add, for a sharded network runs in all processes
        outputs = run_network(model, data.inputs[rows])
        if stop > start:
            totals.add(outputs, torch.from_numpy(data.targets[rows]).to(outputs.device))
        del outputs  # before the next ones are computed
    totals.merge(process_group)
    return totals.score()


def choose_batch_size(inputs: Inputs, device: torch.device = CPU) -> int:
    """Choose how many examples are run at once: 1,024 targets, one window of tokens, or a few MB of pixels."""
    if isinstance(inputs, Pixels):
        return count_images_at_once(inputs.image_shape, VALUES_AT_ONCE if device.type == "cpu" else VALUES_ON_GPU)
    targets_per_example = inputs.shape[1] if inputs.dtype == np.int64 else 1
    return max(1, MAX_TARGETS_AT_ONCE // targets_per_example)


def share_examples(examples: int, batch_size: int, process_group: ProcessGroup) -> Iterator[tuple[int, int]]:
    """Cut a data set into as many batches for each process, given as first example and end; some may be empty."""
    size, rank = process_group.size, process_group.rank
    for start in range(0, examples, batch_size * size):
        count = min(batch_size * size, examples - start)
        yield start + count * rank // size, start + count * (rank + 1) // size


def run_network(model: nn.Module, inputs: Array) -> torch.Tensor:
    """Run the network on one batch, on the device of its weights."""
    with torch.inference_mode():
        outputs: torch.Tensor = model.eval()(torch.from_numpy(inputs).to(get_model_device(model)))
        return outputs
