"""The losses by the recipe's words: what a gradient step makes smaller, as a mean over a batch.

Each also says by what its mean divides, so that the parts of a batch add up to the whole, and how many of a batch's
answers hit. What early stopping looks at is the plain loss of `evaluate`, without smoothing and weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch.nn.functional import cross_entropy, mse_loss

from pilotlight.errors import InvalidInputError

if TYPE_CHECKING:  # the benchmark runs where there is no pydantic
    from collections.abc import Callable, Mapping

    from functions.train.data.dataset import Array, Dataset
    from pilotlight.recipes.options.loss import CrossEntropyOptions, LossOptions, MseOptions


class Loss(Protocol):
    """A loss over outputs (N, ...) and the truth (N, ...), an answer each; all results stay on their device."""

    def mean(self, outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The loss of a batch."""

    def mass(self, truth: torch.Tensor) -> torch.Tensor | float:
        """What the mean divides by: the number of answers, or the sum of their weights."""

    def hits(self, outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """What adds up, over N answers, to N times the metric that training shows."""


class CrossEntropy:
    """-sum_k q_k log p_k with p = softmax(logits), over classes; the truth is an index, (N,) or of tokens (N, T).

    q_k = (1 - e) [k is right] + e / K is the smoothed truth of Szegedy et al., Rethinking the Inception Architecture,
    2016, section 7. With weights w_k per class the terms count w_k, and the mean divides by the right classes' weights.
    """

    def __init__(self, smoothing: float, weights: torch.Tensor | None) -> None:
        self._smoothing, self._weights = smoothing, weights

    def mean(self, outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The loss of a batch."""
        return cross_entropy(flat(outputs), truth.flatten(), self._weights, label_smoothing=self._smoothing)

    def mass(self, truth: torch.Tensor) -> torch.Tensor | float:
        """The number of answers, or the sum of their classes' weights."""
        return truth.numel() if self._weights is None else self._weights[truth].sum()

    def hits(self, outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """How many classes are right."""
        return (outputs.argmax(dim=-1) == truth).sum()


class SquaredError:
    """(y - t)^2, over numbers; outputs and truth have the same shape (N, D)."""

    def mean(self, outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The loss of a batch."""
        return mse_loss(outputs, truth)

    def mass(self, truth: torch.Tensor) -> torch.Tensor | float:
        """The number of answers."""
        return truth.numel()

    def hits(self, outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """For numbers of variance 1, one less the squared error of each: the mean of these is R2."""
        return (1 - (outputs - truth) ** 2).sum()


def flat(outputs: torch.Tensor) -> torch.Tensor:
    """Logits (N, classes) as they are, those of tokens (N, T, classes) one below the other."""
    return outputs.flatten(0, -2)


def classes_loss(options: CrossEntropyOptions, train: Dataset, device: torch.device) -> Loss:
    """Cross-entropy as a recipe asks for it, for labels like those of `train`."""
    if not train.classes:
        raise InvalidInputError("loss.name is \"cross_entropy\", but the data's targets are numbers; it must be 'mse'.")
    weights = class_weights(options, train)
    return CrossEntropy(options.label_smoothing, None if weights is None else torch.from_numpy(weights).to(device))


def numbers_loss(options: MseOptions, train: Dataset, device: torch.device) -> Loss:
    """The mean squared error, for targets that are numbers."""
    if train.classes:
        raise InvalidInputError("loss.name is \"mse\", but the data's targets are classes; it must be 'cross_entropy'.")
    return SquaredError()


# Each takes the options of its own word: the recipe has told them apart by it.
LOSSES: Mapping[str, Callable[[Any, Dataset, torch.device], Loss]] = {
    "cross_entropy": classes_loss,
    "mse": numbers_loss,
}


def build(options: LossOptions | None, train: Dataset, device: torch.device) -> Loss:
    """The loss of a recipe for data like `train`; where it names none, the usual one for such targets."""
    if options is None:
        from pilotlight.recipes.options.loss import CrossEntropyOptions, MseOptions

        options = CrossEntropyOptions(name="cross_entropy") if train.classes else MseOptions(name="mse")
    return LOSSES[options.name](options, train, device)


def class_weights(options: CrossEntropyOptions, train: Dataset) -> Array | None:
    """float32, one weight per class. `balanced` is n / (K n_k).

    n counts the training examples, K the classes, n_k the examples of one class. King and Zeng, Logistic Regression in
    Rare Events Data, 2001.
    """
    if options.class_weights is None:
        return None
    if options.class_weights == "balanced":
        counts = train.profile.counts
        weights: Array = counts.sum() / (len(counts) * np.maximum(counts, 1))
        return weights.astype(np.float32)
    if len(options.class_weights) != len(train.classes):
        raise InvalidInputError(
            f"loss.class_weights has {len(options.class_weights)} weights; it must have one for each of the "
            f"{len(train.classes)} classes."
        )
    return np.array(options.class_weights, np.float32)
