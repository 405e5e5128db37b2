"""What a model is told of its training set before it sees an example of it: means, deviations, gaps, frequencies.

It knows arrays and how to add up what is known of their parts; what is done with the numbers is for `model` and `loss`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Moments:
    """The mean and the standard deviation of each column or channel, (C,)."""

    mean: Array
    deviation: Array  # 1 where all values are the same, so that later values are not blown up


@dataclass(frozen=True, eq=False)
class DatasetStatistics:
    """A training set in numbers."""

    input_moments: Moments  # of what enters the network, after gaps are filled and categories one-hot encoded
    target_moments: Moments  # of the answers, where they are numbers
    class_counts: Array  # examples of each class, int64
    fill_values: Array | None = None  # what stands for a missing value, for each raw column


def compute_moments(values: Array) -> Moments:
    """The moments of (N, C) or (N, C, H, W) values that are all in memory."""
    others = (0, *range(2, values.ndim))
    same = np.ptp(values, axis=others) == 0
    return Moments(values.mean(axis=others), np.where(same, 1, values.std(axis=others)))
