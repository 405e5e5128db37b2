"""A model for a recipe and its data: one of the architectures, between the constants that scale its data.

The module takes raw values and, where it answers with a number, gives one in the data's own unit: the constants are
part of it. It knows no loop and no file.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from functions.train.data.dataset import Array, Dataset
from functions.train.data.encoding import Fill, Spread, names
from functions.train.data.statistics import Moments
from functions.train.models import cnn, custom, decoder, mlp, rnn, transformer
from pilotlight.contracts.manifest import Scaling
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.options.model import CustomOptions, ModelOptions

# From the options, the shape of one example and the number of outputs to the layers; each takes options of its own.
ARCHITECTURES: Mapping[str, Callable[[Any, tuple[int, ...], int], Sequence[nn.Module]]] = {
    "cnn": cnn.layers,
    "mlp": mlp.layers,
    "rnn": rnn.layers,
    "transformer": transformer.layers,
    "decoder": decoder.layers,
}


def build(options: ModelOptions, train: Dataset, folder: Path = Path()) -> nn.Module:
    """An untrained model for data like `train`; seed torch before, since the weights are drawn here.

    A model of the user's own is looked for in `folder`, the recipe's.
    """
    check(options, train)
    if isinstance(options, CustomOptions):
        return nn.Sequential(*front(train), *custom.find(options, folder).layers(entering(train), train.outputs))
    try:
        body = ARCHITECTURES[options.architecture](options, entering(train), train.outputs)
    except RuntimeError as exc:  # torch's own for memory on a CPU, which no other class tells apart
        if "allocate" not in str(exc):
            raise
        said = f"model.architecture is {options.architecture!r}, of more weights than this machine has memory for"
        raise InvalidInputError(f"{said}; make its sizes smaller.") from exc
    return nn.Sequential(*front(train), *body)


def check(options: ModelOptions, train: Dataset) -> None:
    """Refuse a text to what takes values, and values to what takes a text."""
    if train.text and options.architecture != "decoder":
        raise InvalidInputError(
            f"model.architecture is {options.architecture!r}, which takes no text; it must be 'decoder' for one."
        )
    if options.architecture == "decoder" and not train.text:
        raise InvalidInputError(
            "model.architecture is 'decoder', which takes a text alone; data.name must be 'topics' for it."
        )


def entering(train: Dataset) -> tuple[int, ...]:
    """The shape of an example as the network gets it; a table is wider by its categories."""
    if train.text:
        return tuple(train.inputs.shape[1:])
    return (len(train.profile.inputs.mean), *train.inputs.shape[2:])


def entering_names(train: Dataset) -> tuple[str, ...]:
    """What the columns or channels are called that the network gets: `colour=red` for a category."""
    return names(train.features, train.categories)


def front(train: Dataset) -> list[nn.Module]:
    """From raw values to what the network computes with: gaps filled, categories spread, everything scaled.

    Tokens are names: nothing is done to them.
    """
    if train.text:
        return []
    known = train.profile
    fill = [] if known.fill is None else [Fill(known.fill)]
    spread = [Spread(train.categories)] if any(train.categories) else []
    return [*fill, *spread, Standardise(known.inputs, train.inputs.ndim)]


def unscaled(model: nn.Module, train: Dataset) -> nn.Module:
    """The model with answers in the data's own unit, after it learned from `data.scaled`; classes need nothing."""
    if train.classes:
        return model
    return nn.Sequential(model, Rescale(train.profile.targets).to(next(model.parameters()).device))


def scaling(model: nn.Module, kind: type["Standardise | Rescale"], of: Sequence[str]) -> Scaling | None:
    """The constants of a model's first or last step, with the names `of` what they scale; None without such a step."""
    for part in model.modules():
        if isinstance(part, kind):
            mean, deviation = (tuple(part.get_buffer(name).flatten().tolist()) for name in ("mean", "deviation"))
            return Scaling(tuple(of), mean, deviation)
    return None


class Standardise(nn.Module):
    """(x - mean) / deviation for each channel or feature, by constants of the training set, kept with the weights."""

    mean: torch.Tensor  # (C, 1, 1) for images, (F,) for a table
    deviation: torch.Tensor  # of the same shape

    def __init__(self, moments: Moments, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("mean", constant(moments.mean, dimensions))
        self.register_buffer("deviation", constant(moments.deviation, dimensions))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) or (N, F), raw, to the same shape with mean 0 and variance 1 over the training set."""
        return (inputs - self.mean) / self.deviation


class Rescale(nn.Module):
    """x * deviation + mean: from a number as it was learned to one in its own unit."""

    mean: torch.Tensor  # (1,)
    deviation: torch.Tensor  # (1,)

    def __init__(self, moments: Moments) -> None:
        super().__init__()
        self.register_buffer("mean", constant(moments.mean, 2))
        self.register_buffer("deviation", constant(moments.deviation, 2))

    def forward(self, answers: torch.Tensor) -> torch.Tensor:
        """(N, 1) to (N, 1)."""
        return answers * self.deviation + self.mean


def constant(values: Array, dimensions: int) -> torch.Tensor:
    """One number per channel or feature, shaped so that it broadcasts over a batch of that many dimensions."""
    return torch.from_numpy(np.asarray(values, np.float32)).reshape(-1, *[1] * (dimensions - 2))
