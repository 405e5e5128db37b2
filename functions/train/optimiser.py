"""The optimisers by the recipe's words."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from functions.train.recipe import AdamOptions


def adam(options: AdamOptions, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Step by m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w -= r m' / (sqrt(v') + 1e-8).

    The dashes mean corrected for the start at zero. Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015,
    algorithm 1.
    """
    return torch.optim.Adam(parameters, lr=options.learning_rate, betas=options.betas, eps=1e-8)


OPTIMISERS: Mapping[str, Callable[[AdamOptions, Iterable[nn.Parameter]], torch.optim.Optimizer]] = {"adam": adam}


def build(options: AdamOptions, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser of a recipe over these parameters."""
    return OPTIMISERS[options.name](options, parameters)
