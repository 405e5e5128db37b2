"""Turn scores into labels and probabilities. The module knows arrays and labels, not where they come from."""

from collections.abc import Sequence

import numpy as np

from pilotlight.contracts.processing import ClassificationPostprocessing
from pilotlight.processing.activations import sigmoid, softmax
from pilotlight.runtime.datatypes import Array


def build_label_outputs(steps: ClassificationPostprocessing, labels: Sequence[str], scores: Array) -> dict[str, Array]:
    """Build the caller's outputs: the best `top` of the last dimension, best first, and all probabilities in order.

    A class without a label is named by its index.
    """
    probabilities = compute_probabilities(steps, scores, len(labels))
    classes = probabilities.shape[-1]
    if steps.threshold is not None:
        return build_several_labels(steps, steps.threshold, labels, probabilities)
    best = np.argsort(-probabilities, axis=-1, kind="stable")[..., : steps.top]
    values = np.take_along_axis(probabilities, best, axis=-1)
    names = np.array(labels if len(labels) == classes else list(map(str, range(classes))), object)
    if steps.top == 1:
        best, values = best[..., 0], values[..., 0]
    return {
        steps.label: np.asarray(names[best], object),
        steps.probability: values.astype(np.float32),
        steps.probabilities: probabilities.astype(np.float32),
    }


def build_several_labels(
    steps: ClassificationPostprocessing, threshold: float, labels: Sequence[str], probabilities: Array
) -> dict[str, Array]:
    """Build the labels that reach the threshold, best first; shorter lists are padded by empty labels and zeros."""
    classes = probabilities.shape[-1]
    names = np.array([*(labels if len(labels) == classes else map(str, range(classes))), ""], object)
    order = np.argsort(-probabilities, axis=-1, kind="stable")
    values = np.take_along_axis(probabilities, order, axis=-1)
    is_reached = values >= threshold
    counts = is_reached.sum(axis=-1)
    longest = int(counts.max(initial=0))
    order, values = np.where(is_reached, order, classes)[..., :longest], np.where(is_reached, values, 0)[..., :longest]
    return {
        steps.label: np.asarray(names[order], object),
        steps.probability: values.astype(np.float32),
        steps.probabilities: probabilities.astype(np.float32),
        steps.count: counts.astype(np.int32),
    }


def compute_probabilities(steps: ClassificationPostprocessing, scores: Array, classes: int) -> Array:
    """Compute probabilities in float64; one score for two labels is the second label's."""
    wide = scores.astype(np.float64)
    if steps.activation == "softmax":
        return softmax(wide)
    if steps.activation == "sigmoid":
        wide = sigmoid(wide)
    elif steps.activation == "exp":
        wide = np.exp(wide)
    if classes == 2 and wide.shape[-1] == 1:
        return np.concatenate([1 - wide, wide], axis=-1)
    return wide
