"""The statistics of a training set that a model needs: means, deviations, fill values, class frequencies.

Those of a stream are computed part by part: with memory for one part at a time, and with the same result whatever the
parts are, up to rounding.
"""

from dataclasses import dataclass, field

import numpy as np

from functions.train.data import Array


@dataclass(frozen=True, eq=False)
class Moments:
    """The mean and the standard deviation of each column or channel, (C,)."""

    mean: Array
    deviation: Array  # 1 where all values are the same, so that later values are not blown up


@dataclass(frozen=True, eq=False)
class DatasetStatistics:
    """The statistics of a training set."""

    input_moments: Moments  # of what enters the network, after gaps are filled and categories one-hot encoded
    target_moments: Moments  # of the answers, where they are numbers
    class_counts: Array  # examples of each class, int64
    fill_values: Array | None = None  # what replaces a missing value, for each raw column


def compute_moments(values: Array) -> Moments:
    """Compute the moments of (N, C) or (N, C, H, W) values that are all in memory.

    In the type of the values, unless their squares do not fit in it.
    """
    others = (0, *range(2, values.ndim))
    same = np.ptp(values, axis=others) == 0
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = values.mean(axis=others), values.std(axis=others)
    if not (np.isfinite(deviation) & (same | (deviation > 0))).all():
        exact = values.astype(np.float64)
        mean, deviation = (found.astype(values.dtype) for found in (exact.mean(axis=others), exact.std(axis=others)))
    return Moments(mean, np.where(same, 1, deviation))


@dataclass
class RunningMoments:
    """The moments so far of each column or channel.

    Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979. In
    float64; NaN is skipped.
    """

    rows: int = 0  # with and without a value
    count: Array = field(default_factory=lambda: np.zeros(1))
    mean: Array = field(default_factory=lambda: np.zeros(1))
    squared_deviations: Array = field(default_factory=lambda: np.zeros(1))  # sum of (x - mean)^2
    minimum: Array = field(default_factory=lambda: np.full(1, np.inf))
    maximum: Array = field(default_factory=lambda: np.full(1, -np.inf))

    def add_part(self, inputs: Array) -> None:
        """Add a part, (N, C) or (N, C, H, W)."""
        values = np.moveaxis(inputs, 1, -1).reshape(-1, inputs.shape[1]).astype(np.float64)
        present = np.isfinite(values)
        count = present.sum(axis=0)
        mean = np.where(present, values, 0).sum(axis=0) / np.maximum(count, 1)
        squares = np.where(present, np.square(values - mean), 0).sum(axis=0)
        both, apart = self.count + count, mean - self.mean
        share = count / np.maximum(both, 1)
        self.squared_deviations = self.squared_deviations + squares + np.square(apart) * self.count * share
        self.mean, self.count = self.mean + apart * share, both
        self.minimum = np.minimum(self.minimum, np.where(present, values, np.inf).min(axis=0, initial=np.inf))
        self.maximum = np.maximum(self.maximum, np.where(present, values, -np.inf).max(axis=0, initial=-np.inf))
        self.rows += len(values)

    @property
    def varying_mask(self) -> Array:
        """Whether a column has two different values, (C,)."""
        return self.maximum > self.minimum

    @property
    def moments(self) -> Moments:
        """The moments, gaps filled with the mean."""
        deviation = np.sqrt(self.squared_deviations / max(self.rows, 1))
        return Moments(self.mean.astype(np.float32), np.where(self.varying_mask, deviation, 1).astype(np.float32))


@dataclass
class RandomSample:
    """The examples with the lowest keys among all that were added: with random keys, a random sample of them."""

    size: int
    keys: Array | None = None
    inputs: Array | None = None
    targets: Array | None = None

    def add_part(self, keys: Array, inputs: Array, targets: Array) -> None:
        """Add a part of the examples, and keep those with the lowest keys."""
        if self.keys is not None and self.inputs is not None and self.targets is not None:
            keys = np.concatenate([self.keys, keys])
            inputs, targets = np.concatenate([self.inputs, inputs]), np.concatenate([self.targets, targets])
        kept = np.sort(np.argsort(keys, kind="stable")[: self.size])
        self.keys, self.inputs, self.targets = keys[kept], inputs[kept], targets[kept]
