"""A model for a recipe and its data: one of the architectures, between the constants that scale its data.

The module takes raw values and, where it answers with a number, gives one in the data's own unit: the constants are
part of it. It knows no loop and no file.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from functions.train.architectures import cnn, decoder, mlp, rnn, transformer
from functions.train.data import Array, Dataset
from functions.train.options.model import ModelOptions
from pilotlight.contracts import Scaling

# From the options, the shape of one example and the number of outputs to the layers; each takes options of its own.
ARCHITECTURES: Mapping[str, Callable[[Any, tuple[int, ...], int], Sequence[nn.Module]]] = {
    "cnn": cnn.layers,
    "mlp": mlp.layers,
    "rnn": rnn.layers,
    "transformer": transformer.layers,
    "decoder": decoder.layers,
}


def build(options: ModelOptions, train: Dataset) -> nn.Module:
    """An untrained model for data like `train`; seed torch before, since the weights are drawn here."""
    body = ARCHITECTURES[options.architecture](options, train.inputs.shape[1:], train.outputs)
    return nn.Sequential(Standardise(train.inputs), *body)


def unscaled(model: nn.Module, train: Dataset) -> nn.Module:
    """The model with answers in the data's own unit, after it learned from `data.scaled`; classes need nothing."""
    if train.classes:
        return model
    return nn.Sequential(model, Rescale(train.targets).to(next(model.parameters()).device))


def scaling(model: nn.Module, kind: type["Standardise | Rescale"], names: Sequence[str]) -> Scaling | None:
    """The constants of a model's first or last step, by the names of what they scale; None when it has no such step."""
    for part in model.modules():
        if isinstance(part, kind):
            mean, deviation = (tuple(part.get_buffer(name).flatten().tolist()) for name in ("mean", "deviation"))
            return Scaling(tuple(names), mean, deviation)
    return None


class Standardise(nn.Module):
    """(x - mean) / deviation for each channel or feature, by constants of the training set, kept with the weights."""

    mean: torch.Tensor  # (C, 1, 1) for images, (F,) for a table
    deviation: torch.Tensor  # of the same shape

    def __init__(self, inputs: Array) -> None:
        super().__init__()
        others = (0, *range(2, inputs.ndim))
        same = np.ptp(inputs, axis=others) == 0  # in the training set; whatever comes later, it is not blown up
        self.register_buffer("mean", constant(inputs.mean(axis=others), inputs.ndim))
        self.register_buffer("deviation", constant(np.where(same, 1, inputs.std(axis=others)), inputs.ndim))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) or (N, F), raw, to the same shape with mean 0 and variance 1 over the training set."""
        return (inputs - self.mean) / self.deviation


class Rescale(nn.Module):
    """x * deviation + mean: from a number as it was learned to one in its own unit."""

    mean: torch.Tensor  # (1,)
    deviation: torch.Tensor  # (1,)

    def __init__(self, targets: Array) -> None:
        super().__init__()
        self.register_buffer("mean", constant(targets.mean(axis=0), 2))
        self.register_buffer("deviation", constant(targets.std(axis=0), 2))

    def forward(self, answers: torch.Tensor) -> torch.Tensor:
        """(N, 1) to (N, 1)."""
        return answers * self.deviation + self.mean


def constant(values: Array, dimensions: int) -> torch.Tensor:
    """One number per channel or feature, shaped so that it broadcasts over a batch of that many dimensions."""
    return torch.from_numpy(np.asarray(values, np.float32)).reshape(-1, *[1] * (dimensions - 2))
