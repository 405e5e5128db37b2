"""The split of a data set into training, validation, test and calibration examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.data.statistics import Moments
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import BuiltinDataOptions, SplitFractions, UserDataOptions

DEFAULT_CALIBRATION_EXAMPLES = 256  # examples, where a recipe leaves it open and there are so many
QUANTILE_STRATA = 5  # parts of equal size that a number's range is cut into, for the split to share out each alike


@dataclass(frozen=True)
class Splits:
    """Three sets without a common example, and the part of the training set that calibrates the quantizer."""

    train: Dataset
    validation: Dataset
    test: Dataset
    calibration: Dataset
    sha256: str  # of the whole data set, before it was split
    target_moments: Moments | None = None  # by which `scale_targets` has scaled targets that are numbers


def split_dataset(dataset: Dataset, options: BuiltinDataOptions | UserDataOptions) -> Splits:
    """Split the examples by the recipe's seed, with each class (or fifth of a number's range) in proportion."""
    rng = np.random.default_rng(options.seed)
    train, validation, test = split_by_stratum(assign_strata(dataset), options.fractions, rng)
    check_split(dataset, {"train": train, "validation": validation, "test": test})
    size = min(DEFAULT_CALIBRATION_EXAMPLES, len(train)) if options.calibration is None else options.calibration
    if size > len(train):
        raise InvalidInputError(
            f"data.calibration is {size}; there are {len(train)} training examples to take it from."
        )
    calibration = np.sort(rng.permutation(train)[:size])
    take = dataset.select
    return Splits(take(train), take(validation), take(test), take(calibration), dataset.sha256)


def assign_strata(dataset: Dataset) -> Array:
    """Assign each example to a stratum that the split keeps in proportion, (N,): its class, or part of the range."""
    if dataset.classes:
        return dataset.targets
    values = dataset.targets[:, 0]
    return np.digitize(values, np.quantile(values, np.linspace(0, 1, QUANTILE_STRATA + 1)[1:-1]))


def split_by_stratum(strata: Array, fractions: SplitFractions, rng: np.random.Generator) -> Sequence[Array]:
    """Split into the indices of three sets, ascending; each stratum is cut separately, exact to one example."""
    shares = np.cumsum([fractions.train, fractions.validation])
    parts = []
    for stratum in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == stratum))
        parts.append(np.split(members, np.rint(shares * len(members)).astype(int)))
    return [np.sort(np.concatenate(part)) for part in zip(*parts, strict=True)]


def check_split(dataset: Dataset, indices_by_set: Mapping[str, Array]) -> None:
    """Refuse a split that leaves one of its sets empty, or a class out of one."""
    for name, indices in indices_by_set.items():
        if dataset.classes:
            check_classes_present(dataset, name, dataset.targets[indices])
        if not len(indices):
            raise InvalidInputError(f"data.fractions.{name} is too small: that set has no example left.")


def check_classes_present(dataset: Dataset, set_name: str, targets: Array) -> None:
    """Refuse a split that leaves a class out of the set `set_name`, whose targets these are."""
    for rare in np.flatnonzero(np.bincount(targets, minlength=len(dataset.classes)) == 0)[:1]:
        refuse_missing_class(set_name, dataset.classes[rare], int((dataset.targets == rare).sum()))


def refuse_missing_class(set_name: str, class_name: str, count: int) -> NoReturn:
    """Refuse a split for a class of `count` examples in all, of which the set `set_name` has none."""
    message = f"data.fractions.{set_name} is too small: the class {class_name!r} has no example left in that set"
    raise InvalidInputError(f"{message}, of {count:,} in all.")


def scale_targets(splits: Splits) -> Splits:
    """Scale targets that are numbers to mean 0 and variance 1 over the training set, as the training loop needs them.

    So a learning rate means the same for every unit. `build.restore_scale` restores the unit.
    """
    if splits.train.classes:
        return splits
    moments = splits.train.statistics.target_moments

    def scale(part: Dataset) -> Dataset:
        passes = None if part.passes is None else part.passes.scale_targets(moments)
        return replace(part, targets=(part.targets - moments.mean) / moments.deviation, passes=passes)

    train, validation, test, calibration = map(
        scale, (splits.train, splits.validation, splits.test, splits.calibration)
    )
    return Splits(train, validation, test, calibration, splits.sha256, moments)
