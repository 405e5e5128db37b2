"""A model for a recipe and its data: one of the architectures, between layers that scale its data.

The module takes raw values, and predicts a number in the data's own unit: the constants are a part of it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.data.encoding import name_encoded_columns
from functions.train.data.statistics import Moments
from functions.train.models import cnn, custom, decoder, mlp, rnn, transformer
from functions.train.models.table_layers import FillMissing, OneHotEncode
from pilotlight.contracts.manifest import Standardization
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import CustomOptions, ModelOptions

# From the options, the shape of one example and the number of outputs to the layers; each takes options of its own.
ARCHITECTURES: Mapping[str, Callable[[Any, tuple[int, ...], int], Sequence[nn.Module]]] = {
    "cnn": cnn.build_cnn_layers,
    "mlp": mlp.build_mlp_layers,
    "rnn": rnn.build_rnn_layers,
    "transformer": transformer.build_transformer_layers,
    "decoder": decoder.build_decoder_layers,
}


def build_model(options: ModelOptions, train: Dataset, recipe_folder: Path = Path()) -> nn.Module:
    """Build an untrained model for data like `train`; seed torch before, since the weights are drawn here.

    A custom model is looked up in `recipe_folder`, the recipe's folder.
    """
    check_input_kind(options, train)
    if isinstance(options, CustomOptions):
        return nn.Sequential(
            *build_input_layers(train),
            *custom.load_factory(options, recipe_folder).build_layers(
                get_network_input_shape(train), train.output_size
            ),
        )
    try:
        body = ARCHITECTURES[options.architecture](options, get_network_input_shape(train), train.output_size)
    except RuntimeError as exc:  # torch's own for memory on a CPU, which has no class of its own
        if "allocate" not in str(exc):
            raise
        said = f"model.architecture is {options.architecture!r}, of more weights than this machine has memory for"
        raise InvalidInputError(f"{said}; make its sizes smaller.") from exc
    return nn.Sequential(*build_input_layers(train), *body)


def check_input_kind(options: ModelOptions, train: Dataset) -> None:
    """Refuse a text for an architecture that takes values, and values for one that takes a text."""
    if train.text and options.architecture != "decoder":
        raise InvalidInputError(
            f"model.architecture is {options.architecture!r}, which takes no text; it must be 'decoder' for one."
        )
    if options.architecture == "decoder" and not train.text:
        raise InvalidInputError(
            "model.architecture is 'decoder', which takes a text alone; data.name must be 'topics' for it."
        )


def get_network_input_shape(train: Dataset) -> tuple[int, ...]:
    """Return the shape of an example as the network receives it; a table is wider by its categories."""
    if train.text:
        return tuple(train.inputs.shape[1:])
    return (len(train.statistics.input_moments.mean), *train.inputs.shape[2:])


def name_network_inputs(train: Dataset) -> tuple[str, ...]:
    """Name the columns or channels that the network receives: `colour=red` for a category."""
    return name_encoded_columns(train.features, train.categories)


def build_input_layers(train: Dataset) -> list[nn.Module]:
    """Build the layers between raw values and the network: fill gaps, encode categories, scale everything.

    Tokens are names, and stay as they are.
    """
    if train.text:
        return []
    statistics = train.statistics
    fill = [] if statistics.fill_values is None else [FillMissing(statistics.fill_values)]
    spread = [OneHotEncode(train.categories)] if any(train.categories) else []
    return [*fill, *spread, Standardise(statistics.input_moments, train.inputs.ndim)]


def restore_scale(model: nn.Module, train: Dataset) -> nn.Module:
    """Append the layer that restores the data's own unit after training on `scale_targets`; classes need none."""
    if train.classes:
        return model
    return nn.Sequential(model, Rescale(train.statistics.target_moments).to(next(model.parameters()).device))


def find_scaling(
    model: nn.Module, layer_type: type["Standardise | Rescale"], column_names: Sequence[str]
) -> Standardization | None:
    """Find the constants of a model's first or last layer, which scales `column_names`; None without such a layer."""
    for part in model.modules():
        if isinstance(part, layer_type):
            mean, deviation = (tuple(part.get_buffer(name).flatten().tolist()) for name in ("mean", "deviation"))
            return Standardization(tuple(column_names), mean, deviation)
    return None


class Standardise(nn.Module):
    """(x - mean) / deviation for each channel or feature, by constants of the training set, kept with the weights."""

    mean: torch.Tensor  # (C, 1, 1) for images, (F,) for a table
    deviation: torch.Tensor  # of the same shape

    def __init__(self, moments: Moments, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("mean", to_broadcast_tensor(moments.mean, dimensions))
        self.register_buffer("deviation", to_broadcast_tensor(moments.deviation, dimensions))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Scale raw (N, C, H, W) or (N, F) to mean 0 and variance 1 over the training set."""
        return (inputs - self.mean) / self.deviation


class Rescale(nn.Module):
    """x * deviation + mean: from a scaled prediction to one in the target's own unit."""

    mean: torch.Tensor  # (1,)
    deviation: torch.Tensor  # (1,)

    def __init__(self, moments: Moments) -> None:
        super().__init__()
        self.register_buffer("mean", to_broadcast_tensor(moments.mean, 2))
        self.register_buffer("deviation", to_broadcast_tensor(moments.deviation, 2))

    def forward(self, answers: torch.Tensor) -> torch.Tensor:
        """Scale (N, 1) to (N, 1)."""
        return answers * self.deviation + self.mean


def to_broadcast_tensor(values: Array, dimensions: int) -> torch.Tensor:
    """Shape one number per channel or feature so that it broadcasts over a batch of that many dimensions."""
    return torch.from_numpy(np.asarray(values, np.float32)).reshape(-1, *[1] * (dimensions - 2))
