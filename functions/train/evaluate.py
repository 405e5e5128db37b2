"""How good answers are: logits against labels, whoever computed them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from functions.train.data import Array


@dataclass(frozen=True)
class Score:
    """The share of right answers, over all examples and over those of each class, and the mean cross-entropy."""

    accuracy: float  # 0 to 1
    loss: float  # nats
    per_class: dict[str, float]  # the recall of each class that occurs, 0 to 1


def score(logits: Array, labels: Array, classes: Sequence[str]) -> Score:
    """Score (N, classes) logits against (N,) labels."""
    right = logits.argmax(axis=1) == labels
    present = np.unique(labels)
    recall = {classes[label]: float(right[labels == label].mean()) for label in present}
    return Score(float(right.mean()), cross_entropy(logits, labels), recall)


def cross_entropy(logits: Array, labels: Array) -> float:
    """The mean of log(sum(exp(z))) - z[label]; in float64 and shifted by the maximum, so that nothing overflows."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    chosen = shifted[np.arange(len(labels)), labels]
    return float((np.log(np.exp(shifted).sum(axis=1)) - chosen).mean())
