"""The losses by their names in a recipe: what a gradient step reduces, as a mean over a batch.

Each also computes what its mean divides by, so that the parts of a batch add up to the whole, and how many of a batch's
predictions are right. Early stopping uses the plain loss of `evaluate_outputs`, without smoothing and weights.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn.functional import cross_entropy, mse_loss

from functions.train.data import Array
from functions.train.data.dataset import Dataset
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import CrossEntropyOptions, LossOptions, MseOptions


class LossFunction(Protocol):
    """A loss over outputs (N, ...) and targets (N, ...), one for each; all results stay on their device."""

    def compute_mean(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Compute the loss of a batch."""

    def total_weight(self, targets: torch.Tensor) -> torch.Tensor | float:
        """Return what the mean divides by: the number of targets, or the sum of their weights."""

    def count_hits(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Count what adds up, over N targets, to N times the metric that training shows."""


class CrossEntropy:
    """-sum_k q_k log p_k with p = softmax(logits), over classes; the truth is an index, (N,) or of tokens (N, T).

    q_k = (1 - e) [k is right] + e / K is the smoothed truth of Szegedy et al., Rethinking the Inception Architecture,
    2016, section 7. With weights w_k per class the terms count w_k, and the mean divides by the right classes' weights.
    """

    def __init__(self, smoothing: float, weights: torch.Tensor | None) -> None:
        self._smoothing, self._weights = smoothing, weights

    def compute_mean(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Compute the loss of a batch."""
        return cross_entropy(flatten_logits(outputs), targets.flatten(), self._weights, label_smoothing=self._smoothing)

    def total_weight(self, targets: torch.Tensor) -> torch.Tensor | float:
        """Return the number of targets, or the sum of their classes' weights."""
        return targets.numel() if self._weights is None else self._weights[targets].sum()

    def count_hits(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Count the right classes."""
        return (outputs.argmax(dim=-1) == targets).sum()


class SquaredError:
    """(y - t)^2, over numbers; outputs and truth have the same shape (N, D)."""

    def compute_mean(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Compute the loss of a batch."""
        return mse_loss(outputs, targets)

    def total_weight(self, targets: torch.Tensor) -> torch.Tensor | float:
        """Return the number of targets."""
        return targets.numel()

    def count_hits(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum 1 minus the squared error of each: for numbers of variance 1, the mean of these is R2."""
        return (1 - (outputs - targets) ** 2).sum()


def flatten_logits(outputs: torch.Tensor) -> torch.Tensor:
    """Keep logits (N, classes), and flatten those of tokens (N, T, classes) to (N T, classes)."""
    return outputs.flatten(0, -2)


def build_cross_entropy(options: CrossEntropyOptions, train: Dataset, device: torch.device) -> LossFunction:
    """Build the cross-entropy of a recipe, for labels like those of `train`."""
    if not train.classes:
        raise InvalidInputError("loss.name is \"cross_entropy\", but the data's targets are numbers; it must be 'mse'.")
    weights = compute_class_weights(options, train)
    return CrossEntropy(options.label_smoothing, None if weights is None else torch.from_numpy(weights).to(device))


def build_squared_error(options: MseOptions, train: Dataset, device: torch.device) -> LossFunction:
    """Build the mean squared error, for targets that are numbers."""
    if train.classes:
        raise InvalidInputError("loss.name is \"mse\", but the data's targets are classes; it must be 'cross_entropy'.")
    return SquaredError()


# Each takes the options of its own name, by which the recipe discriminates them.
LOSSES: Mapping[str, Callable[[Any, Dataset, torch.device], LossFunction]] = {
    "cross_entropy": build_cross_entropy,
    "mse": build_squared_error,
}


def build_loss(options: LossOptions | None, train: Dataset, device: torch.device) -> LossFunction:
    """Build the loss of a recipe for data like `train`; where it names none, the usual one for such targets."""
    if options is None:
        options = CrossEntropyOptions(name="cross_entropy") if train.classes else MseOptions(name="mse")
    return LOSSES[options.name](options, train, device)


def compute_class_weights(options: CrossEntropyOptions, train: Dataset) -> Array | None:
    """Compute one weight per class, float32. `balanced` is n / (K n_k).

    n counts the training examples, K the classes, n_k the examples of one class. King and Zeng, Logistic Regression in
    Rare Events Data, 2001.
    """
    if options.class_weights is None:
        return None
    if options.class_weights == "balanced":
        counts = train.statistics.class_counts
        weights: Array = counts.sum() / (len(counts) * np.maximum(counts, 1))
        return weights.astype(np.float32)
    if len(options.class_weights) != len(train.classes):
        raise InvalidInputError(
            f"loss.class_weights has {len(options.class_weights)} weights; it must have one for each of the "
            f"{len(train.classes)} classes."
        )
    return np.array(options.class_weights, np.float32)
