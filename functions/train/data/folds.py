"""Cross-validation: how good a recipe is on the whole data set, and how much that depends on the split.

The published model is trained on the recipe's own split.
"""

from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.data.split import Splits, assign_strata
from pilotlight.contracts.metric import format_value
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import SplitFractions


@dataclass(frozen=True)
class FoldScores:
    """The score on each fold of a model that was not trained on it."""

    metric: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the folds."""
        return fmean(self.values)

    @property
    def standard_deviation(self) -> float:
        """The standard deviation of a fold's value, with n - 1. It is not the mean's: the folds share data."""
        return stdev(self.values)

    def __str__(self) -> str:
        mean, sd = (format_value(self.metric, value) for value in (self.mean, self.standard_deviation))
        return f"{self.metric} {mean} over {len(self.values)} folds, standard deviation {sd}"


def split_into_folds(dataset: Dataset, k: int, seed: int) -> list[Array]:
    """Split the indices into k folds, ascending, that hold every example once; each class or range is spread evenly."""
    random, labels = np.random.default_rng(seed), assign_strata(dataset)
    dealt = np.concatenate([random.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)])
    if dataset.classes and np.bincount(dataset.targets).min() < k:
        raise InvalidInputError(f"folds is {k}; a class has only {np.bincount(dataset.targets).min()} examples.")
    return [np.sort(dealt[number::k]) for number in range(k)]


def build_fold_splits(dataset: Dataset, k: int, seed: int, fractions: SplitFractions) -> list[Splits]:
    """Build the splits in which each fold is the test set; the rest keeps its proportion of validation examples."""
    check_fold_keys(dataset)
    parts = round((fractions.train + fractions.validation) / fractions.validation)
    whole, hidden = np.arange(len(dataset)), split_into_folds(dataset, k, seed)
    return [split_around_fold(dataset, np.setdiff1d(whole, test), test, max(2, parts), seed) for test in hidden]


def check_fold_keys(dataset: Dataset) -> None:
    """Refuse folds where files, groups or time determine the sets, which folds would mix."""
    found = {"data.validation and data.test": dataset.keys.sets, "data.group": dataset.keys.groups}
    found["data.time"] = dataset.keys.times
    for key, values in found.items():
        if values is not None:
            raise InvalidInputError(f"folds must be null where {key} determines the sets: folds are drawn by chance.")


def split_around_fold(dataset: Dataset, rest: Array, test: Array, parts: int, seed: int) -> Splits:
    """Build the sets of one fold: validation is one of `parts` parts of the rest."""
    validation = split_into_folds(dataset.select(rest), parts, seed)[0]
    train = dataset.select(np.delete(rest, validation))
    return Splits(train, dataset.select(rest[validation]), dataset.select(test), train, dataset.sha256)
