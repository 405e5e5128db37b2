"""Cross-validation: how good a recipe is on the whole data set, and how much that depends on the split.

It knows examples and their shares, no model. The published model is trained on the recipe's own split.
"""

from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from functions.train.data.dataset import Array, Dataset, Splits, strata
from functions.train.evaluation.metrics import shown
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.options.data import Fractions


@dataclass(frozen=True)
class Folds:
    """What a model that never saw the fold scored on it, for each fold."""

    metric: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the folds."""
        return fmean(self.values)

    @property
    def sd(self) -> float:
        """The standard deviation of a fold's value, with n - 1. It is not the mean's: the folds share data."""
        return stdev(self.values)

    def __str__(self) -> str:
        mean, sd = (shown(self.metric, value) for value in (self.mean, self.sd))
        return f"{self.metric} {mean} over {len(self.values)} folds, standard deviation {sd}"


def fold(dataset: Dataset, k: int, seed: int) -> list[Array]:
    """The indices of k folds, ascending, that hold every example once; every class (or range) is dealt out evenly."""
    random, labels = np.random.default_rng(seed), strata(dataset)
    dealt = np.concatenate([random.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)])
    if dataset.classes and np.bincount(dataset.targets).min() < k:
        raise InvalidInputError(f"folds is {k}; a class has only {np.bincount(dataset.targets).min()} examples.")
    return [np.sort(dealt[number::k]) for number in range(k)]


def splits(dataset: Dataset, k: int, seed: int, fractions: Fractions) -> list[Splits]:
    """For each fold, the data set with that fold as the test set; the rest keeps its proportion of validation."""
    parts = round((fractions.train + fractions.validation) / fractions.validation)
    whole, hidden = np.arange(len(dataset)), fold(dataset, k, seed)
    return [split(dataset, np.setdiff1d(whole, test), test, max(2, parts), seed) for test in hidden]


def split(dataset: Dataset, rest: Array, test: Array, parts: int, seed: int) -> Splits:
    """One fold's sets: validation is one of `parts` of the rest."""
    validation = fold(dataset.take(rest), parts, seed)[0]
    train = dataset.take(np.delete(rest, validation))
    return Splits(train, dataset.take(rest[validation]), dataset.take(test), train, dataset.sha256)
