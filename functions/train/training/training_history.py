"""The epochs of a training: the figures of each, which one is the best, and when to stop early."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from functions.train.distributed import parallel
from pilotlight.contracts.metric import METRICS
from pilotlight.recipes.schema import StoppingOptions


@dataclass(frozen=True)
class EpochMetrics:
    """One pass over the training set. The training figures are means over the pass, taken with dropout on.

    Accuracy is the share of right classes; for a number it is the metric R2.
    """

    number: int  # from 1
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float  # of the last step
    seconds: float
    metric: str = "accuracy"  # the name of what the accuracies are
    gradient_norm: float = 0.0  # before clipping, the mean over the steps
    examples_per_s: float = 0.0  # of the pass alone, without the evaluation
    tokens_per_s: float = 0.0  # likewise, of a text, whose examples are windows of tokens
    mfu: float | None = None  # see `mfu`; on a GPU of its table
    monitored: str = "loss"  # what early stopping goes by: the validation loss, or a metric on the validation set
    monitored_value: float | None = None  # of that metric; None of the loss, and where it is not finite

    def is_better_than(self, best: "EpochMetrics", min_delta: float) -> bool:
        """Return whether early stopping keeps this epoch's weights in place of the best so far."""
        if self.monitored == "loss":
            return self.validation_loss < best.validation_loss - min_delta
        if self.monitored_value is None or best.monitored_value is None:
            return self.monitored_value is not None
        return METRICS[self.monitored].is_better(self.monitored_value, best.monitored_value, min_delta)


@dataclass(frozen=True)
class TrainingHistory:
    """Every epoch of a run, and the one whose weights the model has kept."""

    epochs: tuple[EpochMetrics, ...]
    best_epoch: EpochMetrics


class EarlyStopping:
    """Keeps the weights of the best epoch so far, and decides when none has been better for too long."""

    def __init__(self, options: StoppingOptions) -> None:
        self.options = options
        self.best_epoch: EpochMetrics | None = None
        self.best_weights: dict[str, torch.Tensor] = {}

    def record_epoch(self, epoch: EpochMetrics, model: nn.Module) -> bool:
        """Record an epoch; return whether `patience` epochs have now passed since the best one."""
        if self._is_better(epoch):
            self.best_epoch = epoch
            state = model.state_dict().items()
            self.best_weights = {name: parallel.copy_full_tensor(value.detach()) for name, value in state}
        return self.should_stop(epoch)

    def should_stop(self, last_epoch: EpochMetrics) -> bool:
        """Return whether `patience` epochs have passed since the best one."""
        return self.best_epoch is not None and last_epoch.number - self.best_epoch.number >= self.options.patience

    def replay_epochs(self, epochs: Sequence[EpochMetrics]) -> EpochMetrics:
        """Find the best of these epochs, one at least, again; without its weights."""
        for epoch in epochs:
            if self._is_better(epoch):
                self.best_epoch = epoch
        if self.best_epoch is None:
            raise ValueError("There is no epoch yet.")
        return self.best_epoch

    def restore_best_weights(self, model: nn.Module) -> EpochMetrics:
        """Restore the best epoch's weights into the model."""
        if self.best_epoch is None:
            raise ValueError("There is no epoch yet.")
        model.load_state_dict(self.best_weights)
        return self.best_epoch

    def _is_better(self, epoch: EpochMetrics) -> bool:
        return self.best_epoch is None or epoch.is_better_than(self.best_epoch, self.options.min_delta)
