"""The fully connected network: dense layers over all the values of an example."""

from itertools import pairwise
from math import prod

from torch import nn

from pilotlight.recipes.schema import MlpOptions


def build_mlp_layers(options: MlpOptions, input_shape: tuple[int, ...], output_size: int) -> list[nn.Module]:
    """Build (N, ...) to (N, outputs): a dense layer with ReLU for each width, then one without."""
    widths = (prod(input_shape), *options.hidden)
    body: list[nn.Module] = [nn.Flatten()] if len(input_shape) > 1 else []
    for before, after in pairwise(widths):
        body += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(options.dropout)]
    return [*body, nn.Linear(widths[-1], output_size)]
