"""An exponential moving average of a model's weights, which often generalises better than the last ones do."""

import copy

import torch
from torch import nn


class ExponentialMovingAverage:
    """a = d a + (1 - d) w after each step t = 1, 2, ..., from a = w before the first.

    d = min(decay, (1 + t) / (10 + t)), as in TensorFlow's ExponentialMovingAverage, so that a short training is not
    dominated by its random start. Running statistics of a normalisation are averaged like weights; counters are copied.
    Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992.
    """

    def __init__(self, model: nn.Module, decay: float, model_copy: nn.Module | None = None) -> None:
        self.model = (model_copy or copy.deepcopy(model)).eval().requires_grad_(requires_grad=False)
        self._source, self._decay = model, decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take note of the weights after step `step`, from 1."""
        decay = min(self._decay, (1 + step) / (10 + step))
        source = self._source.state_dict()
        for name, averaged in self.model.state_dict().items():
            if averaged.is_floating_point():
                averaged.lerp_(source[name], 1 - decay)
            else:
                averaged.copy_(source[name])
