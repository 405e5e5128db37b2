"""Data sets and their split, as plain arrays.

It knows what the examples are, not what is done with them: values stay raw, since scaling belongs to the model.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn.datasets

from functions.train.recipe import DataOptions, Fractions
from pilotlight.errors import InvalidInputError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, as somebody who calls the served model sends them."""

    inputs: Array  # float32 (N, channels, height, width)
    targets: Array  # int64 (N,), an index into classes
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: Array) -> "Dataset":
        """The examples at `indices`, in that order."""
        return Dataset(self.inputs[indices], self.targets[indices], self.classes)

    @property
    def sha256(self) -> str:
        """In hex, of the images' bytes and then the labels': float32 and int64, little-endian, row by row."""
        digest = hashlib.sha256(np.ascontiguousarray(self.inputs, "<f4").tobytes())
        digest.update(np.ascontiguousarray(self.targets, "<i8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Splits:
    """Three sets without a common example, and the part of the training set that the quantizer calibrates on."""

    train: Dataset
    validation: Dataset
    test: Dataset
    calibration: Dataset
    sha256: str  # of the whole data set, before it was split


def digits() -> Dataset:
    """scikit-learn's 1,797 scans of handwritten digits, float32 (1797, 1, 8, 8), pixels 0 to 16 as they come."""
    scans = sklearn.datasets.load_digits()
    images = scans.images.astype(np.float32)[:, None]
    return Dataset(images, scans.target.astype(np.int64), tuple(map(str, scans.target_names)))


DATASETS: Mapping[str, Callable[[], Dataset]] = {"digits": digits}


def load(options: DataOptions) -> Dataset:
    """The data set of a recipe."""
    return DATASETS[options.name]()


def split(dataset: Dataset, options: DataOptions) -> Splits:
    """Share the examples out by the recipe's seed, every class in the same proportions."""
    random = np.random.default_rng(options.seed)
    train, validation, test = stratify(dataset.targets, options.fractions, random)
    check(dataset, {"train": train, "validation": validation, "test": test})
    if options.calibration > len(train):
        raise InvalidInputError(
            f"data.calibration is {options.calibration}; there are {len(train)} training examples to take it from."
        )
    calibration = np.sort(random.permutation(train)[: options.calibration])
    take = dataset.take
    return Splits(take(train), take(validation), take(test), take(calibration), dataset.sha256)


def stratify(labels: Array, fractions: Fractions, random: np.random.Generator) -> Sequence[Array]:
    """Indices of the three sets, in ascending order; each class is cut by itself, right to one example."""
    shares = np.cumsum([fractions.train, fractions.validation])
    parts = []
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        parts.append(np.split(members, np.rint(shares * len(members)).astype(int)))
    return [np.sort(np.concatenate(part)) for part in zip(*parts, strict=True)]


def check(dataset: Dataset, sets: Mapping[str, Array]) -> None:
    """Refuse a split that leaves a class out of one of its sets."""
    for name, indices in sets.items():
        if len(np.unique(dataset.targets[indices])) < len(dataset.classes):
            raise InvalidInputError(f"data.fractions.{name} is too small: a class has no example left in that set.")
