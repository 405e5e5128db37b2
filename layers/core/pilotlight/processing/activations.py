"""Turn scores into probabilities. The module knows arrays alone."""

import numpy as np

from pilotlight.runtime.datatypes import Array


def softmax(scores: Array, axis: int = -1) -> Array:
    """Compute exp(x) over its sum along a dimension, without overflow."""
    powers = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def sigmoid(scores: Array) -> Array:
    """Compute 1 / (1 + exp(-x)), without overflow on either side."""
    small = np.exp(-np.abs(scores))
    return np.asarray(np.where(scores >= 0, 1, small) / (1 + small))
