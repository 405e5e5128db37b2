"""The epochs of a training: what is told of each, which one is the best, and when none has been better for too long.

It knows figures and weights, not how either came about.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from functions.train.distributed import parallel
from pilotlight.recipes.options.life import StoppingOptions


@dataclass(frozen=True)
class Epoch:
    """One pass over the training set. The training figures are means over the pass, taken with dropout on.

    Accuracy is the share of right classes; for a number it is what `metric` says, R2.
    """

    number: int  # from 1
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float  # of the last step
    seconds: float
    metric: str = "accuracy"  # the name of what stands under accuracy
    gradient_norm: float = 0.0  # before clipping, the mean over the steps
    examples_per_s: float = 0.0  # of the pass alone, without the evaluation
    tokens_per_s: float = 0.0  # likewise, of a text, whose examples are windows of tokens
    mfu: float | None = None  # see `flops`; on a GPU of its table


@dataclass(frozen=True)
class History:
    """Every epoch of a run, and the one whose weights the model has kept."""

    epochs: tuple[Epoch, ...]
    best: Epoch


class EarlyStopping:
    """Remembers the weights of the best epoch so far, and says when none has been better for too long."""

    def __init__(self, options: StoppingOptions) -> None:
        self.options = options
        self.best: Epoch | None = None
        self.weights: dict[str, torch.Tensor] = {}

    def exhausted(self, epoch: Epoch, model: nn.Module) -> bool:
        """Take note of an epoch; whether `patience` epochs have now passed since the best one."""
        if self._better(epoch):
            self.best = epoch
            state = model.state_dict().items()
            self.weights = {name: parallel.kept(value.detach()) for name, value in state}
        return self.over(epoch)

    def over(self, last: Epoch) -> bool:
        """Whether `patience` epochs have passed since the best one."""
        return self.best is not None and last.number - self.best.number >= self.options.patience

    def replay(self, epochs: Sequence[Epoch]) -> Epoch:
        """Find the best of these epochs, one at least, again; without its weights."""
        for epoch in epochs:
            if self._better(epoch):
                self.best = epoch
        if self.best is None:
            raise ValueError("There is no epoch yet.")
        return self.best

    def restore(self, model: nn.Module) -> Epoch:
        """Give the model the best epoch's weights back."""
        if self.best is None:
            raise ValueError("There is no epoch yet.")
        model.load_state_dict(self.weights)
        return self.best

    def _better(self, epoch: Epoch) -> bool:
        return self.best is None or epoch.validation_loss < self.best.validation_loss - self.options.min_delta
