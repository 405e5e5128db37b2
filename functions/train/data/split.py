"""The split of a data set into training, validation, test and calibration examples."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from functions.train.data import Array
from functions.train.data.column_notes import describe_unlearned
from functions.train.data.dataset import Dataset
from functions.train.data.encoding import NO_CATEGORY
from functions.train.data.split_keys import (
    OPEN,
    SETS,
    assign_groups,
    assign_times,
    describe_groups,
    describe_own_files,
    describe_times,
)
from functions.train.data.statistics import Moments
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import BuiltinDataOptions, SplitFractions, UserDataOptions

DEFAULT_CALIBRATION_EXAMPLES = 256  # examples, where a recipe leaves it open and there are so many
MAX_NAMED_CLASSES = 10  # rare classes that a sentence names
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
    """Split the examples by the recipe's seed, with each class (or fifth of a number's range) in proportion.

    Files of a set's own, groups and time determine the set where the recipe says so.
    """
    dataset = dataset if isinstance(options, BuiltinDataOptions) else handle_rare_classes(dataset, options)
    rng = np.random.default_rng(options.seed)
    assigned = assign_sets(dataset, options, rng)
    train, validation, test = (np.flatnonzero(assigned == number) for number in range(len(SETS)))
    dataset = replace(dataset, notes=(*dataset.notes, *describe_split(dataset, assigned)))
    check_own_files(assigned, options)
    check_split(dataset, {"train": train, "validation": validation, "test": test}, find_sets_to_check(options))
    size = min(DEFAULT_CALIBRATION_EXAMPLES, len(train)) if options.calibration is None else options.calibration
    if size > len(train):
        raise InvalidInputError(
            f"data.calibration is {size}; there are {len(train)} training examples to take it from."
        )
    calibration = np.sort(rng.permutation(train)[:size])
    sha256 = hash_assignment(dataset, assigned)
    take = (forget_unlearned_categories(dataset, train, options) if dataset.categories else dataset).select
    return Splits(take(train), take(validation), take(test), take(calibration), sha256)


def check_own_files(assigned: Array, options: BuiltinDataOptions | UserDataOptions) -> None:
    """Refuse files of a set's own of which cleaning has left nothing."""
    for name in options.own_paths if isinstance(options, UserDataOptions) else ():
        if not (assigned == SETS.index(name)).any():
            raise InvalidInputError(
                f"No example of data.{name} is left: what lacks a value or repeats an earlier one, as of data.path, is "
                "left out; a set that judges needs examples that are not learned from."
            )


def forget_unlearned_categories(
    dataset: Dataset, train: Array, options: BuiltinDataOptions | UserDataOptions
) -> Dataset:
    """Make the categories that no training example has what they are to the served model: unknown ones."""
    unknown = options.unknown if isinstance(options, UserDataOptions) else "missing"
    code = np.nan if unknown == "missing" and dataset.missing != "drop" else NO_CATEGORY
    inputs, categories, notes = dataset.inputs.copy(), list(dataset.categories), list(dataset.notes)
    for column, words in enumerate(dataset.categories):
        learned = np.unique(inputs[train, column][np.isfinite(inputs[train, column])]).astype(int)
        if not 0 < len(learned) < len(words):
            continue
        new_codes = np.full(len(words), code, np.float32)
        new_codes[learned] = np.arange(len(learned))
        given = np.flatnonzero(np.isfinite(inputs[:, column]))
        inputs[given, column] = new_codes[inputs[given, column].astype(int)]
        categories[column] = tuple(words[place] for place in learned)
        notes.append(describe_unlearned(dataset.features[column], sorted({*words} - {*categories[column]})))
    return replace(dataset, inputs=inputs, categories=tuple(categories), notes=tuple(notes))


def hash_assignment(dataset: Dataset, assigned: Array) -> str:
    """Hash a data set; where files, groups or time determine the sets, then also the set of each example, in a byte."""
    if dataset.keys.is_random:
        return dataset.sha256
    return hashlib.sha256(dataset.sha256.encode() + assigned.astype(np.int8).tobytes()).hexdigest()


def assign_sets(dataset: Dataset, options: BuiltinDataOptions | UserDataOptions, rng: np.random.Generator) -> Array:
    """Assign each example to a set, int8 (N,): an index into SETS."""
    keys, fractions = dataset.keys, options.fractions
    taken = np.full(len(dataset), OPEN, np.int8) if keys.sets is None else keys.sets
    if keys.times is not None:
        return assign_times(keys.times, fractions, taken)
    if keys.groups is not None:
        return assign_groups(keys.groups, assign_strata(dataset), fractions, rng, taken)
    chosen, free = taken.copy(), np.flatnonzero(taken == OPEN)
    spread = isinstance(options, UserDataOptions) and bool(dataset.classes)
    parts = split_by_stratum(assign_strata(dataset)[free], fractions, rng, spread_rare=spread)
    for number, part in enumerate(parts):
        chosen[free[part]] = number
    return chosen


def describe_split(dataset: Dataset, assigned: Array) -> Iterator[str]:
    """Describe what determined the sets besides chance."""
    keys = dataset.keys
    if keys.sets is not None:
        own = [number for number in range(1, len(SETS)) if (keys.sets == number).any()]
        yield describe_own_files([int((keys.sets == number).sum()) for number in own], [SETS[number] for number in own])
    if keys.groups is not None:
        yield describe_groups(keys.groups, assigned)
    if keys.times is not None:
        yield describe_times(keys, assigned)


def find_sets_to_check(options: BuiltinDataOptions | UserDataOptions) -> tuple[str, ...]:
    """Find the sets in which every class must occur: a file of one's own may lack some, and so may kept rare ones."""
    if isinstance(options, BuiltinDataOptions):
        return SETS
    if options.rare == "keep":
        return SETS[:1]
    return tuple(name for name in SETS if name not in options.own_paths)


def handle_rare_classes(dataset: Dataset, options: UserDataOptions) -> Dataset:
    """Leave out or merge the classes with fewer examples than the recipe's minimum, as it says."""
    if options.rare not in ("drop", "merge") or not dataset.classes:
        return dataset
    sets = dataset.keys.sets
    learned = dataset.targets if sets is None else dataset.targets[sets <= 0]
    counts = np.bincount(learned, minlength=len(dataset.classes))
    minimum = options.minimum or len(SETS) - len(options.own_paths) + (len(options.own_paths) == 2)
    rare = np.flatnonzero(counts < minimum)
    if not len(rare):
        return dataset
    said = ", ".join(f"{dataset.classes[code]} ({counts[code]:,})" for code in rare[:MAX_NAMED_CLASSES])
    said += f" and {len(rare) - MAX_NAMED_CLASSES:,} more" if len(rare) > MAX_NAMED_CLASSES else ""
    said = f"{len(rare):,} classes of fewer than {minimum:,} examples" + f": {said}"
    changed = drop_classes(dataset, rare) if options.rare == "drop" else merge_classes(dataset, rare, options, minimum)
    if len(changed.classes) < 2:
        raise InvalidInputError(f"data.rare is {options.rare}, which leaves one class; there were {said}.")
    left = len(dataset) - len(changed)
    verb = f"left out {said}; {left:,} examples" if options.rare == "drop" else f"merged into {options.other!r} {said}"
    return replace(changed, notes=(*changed.notes, verb))


def drop_classes(dataset: Dataset, rare: Array) -> Dataset:
    """Leave out the examples of some classes, and these classes."""
    names = tuple(name for code, name in enumerate(dataset.classes) if code not in rare)
    kept = dataset.select(np.flatnonzero(~np.isin(dataset.targets, rare)))
    new_codes = np.array([names.index(name) if name in names else OPEN for name in dataset.classes], np.int64)
    return replace(kept, targets=new_codes[kept.targets], classes=names)


def merge_classes(dataset: Dataset, rare: Array, options: UserDataOptions, minimum: int) -> Dataset:
    """Make one class of some, at the end of the others unless there is one of that name already."""
    other = options.other
    names = [name for code, name in enumerate(dataset.classes) if code not in rare or name == other]
    names += [] if other in names else [other]
    new_codes = np.array(
        [names.index(other if code in rare else name) for code, name in enumerate(dataset.classes)], np.int64
    )
    targets = new_codes[dataset.targets]
    if (together := int((targets == names.index(other)).sum())) < minimum:
        raise InvalidInputError(
            f"data.rare is merge, and the rare classes have {together:,} examples together, of the {minimum:,} that "
            f"{other!r} needs; take drop or keep."
        )
    return replace(dataset, targets=targets, classes=tuple(names))


def assign_strata(dataset: Dataset) -> Array:
    """Assign each example to a stratum that the split keeps in proportion, (N,): its class, or part of the range."""
    if dataset.classes:
        return dataset.targets
    values = dataset.targets[:, 0]
    return np.digitize(values, np.quantile(values, np.linspace(0, 1, QUANTILE_STRATA + 1)[1:-1]))


def split_by_stratum(
    strata: Array, fractions: SplitFractions, rng: np.random.Generator, *, spread_rare: bool = False
) -> Sequence[Array]:
    """Split into the indices of three sets, ascending; each stratum is cut separately, exact to one example.

    With `spread_rare`, a stratum gives each set an example if it has as many, and the training set the first.
    """
    shares = np.cumsum([fractions.train, fractions.validation])
    parts = [[np.zeros(0, np.int64)] * len(SETS)]
    for stratum in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == stratum))
        edges = np.rint(shares * len(members)).astype(int)
        parts.append(np.split(members, spread_edges(edges, len(members), fractions) if spread_rare else edges))
    return [np.sort(np.concatenate(part)) for part in zip(*parts, strict=True)]


def spread_edges(edges: Array, count: int, fractions: SplitFractions) -> Array:
    """Move the two edges between three sets of `count` examples so that as few as possible are empty."""
    wanted = np.array([fractions.train, fractions.validation, fractions.test]) > 0
    sizes = np.diff([0, *edges, count])
    for number in (0, 2, 1):  # training first, then test
        if wanted[number] and not sizes[number] and (sizes.max() > 1 or (number == 0 and sizes.max())):
            sizes[int(sizes.argmax())] -= 1
            sizes[number] += 1
    return np.cumsum(sizes)[:2]


def check_split(dataset: Dataset, indices_by_set: Mapping[str, Array], complete_sets: Sequence[str] = SETS) -> None:
    """Refuse a split that leaves one of its sets empty, or a class out of one that must be complete."""
    for name, indices in indices_by_set.items():
        if dataset.classes and name in complete_sets:
            check_classes_present(dataset, name, dataset.targets[indices])
        if not len(indices):
            raise InvalidInputError(f"data.fractions.{name} is too small: that set has no example left.")


def check_classes_present(dataset: Dataset, set_name: str, targets: Array) -> None:
    """Refuse a split that leaves a class out of the set `set_name`, whose targets these are."""
    for rare in np.flatnonzero(np.bincount(targets, minlength=len(dataset.classes)) == 0)[:1]:
        count, name = int((dataset.targets == rare).sum()), dataset.classes[rare]
        if count and set_name == SETS[0] and dataset.keys.sets is not None:
            raise InvalidInputError(
                f"The class {name!r} occurs in the files of data.validation or data.test alone, {count:,} times, and "
                "cannot be learned; data.rare: drop leaves it out."
            )
        refuse_missing_class(set_name, name, count, dataset.keys.key)


def refuse_missing_class(set_name: str, class_name: str, count: int, key: str | None = None) -> NoReturn:
    """Refuse a split for a class of `count` examples in all, of which the set `set_name` has none."""
    if key and count:
        raise InvalidInputError(
            f"{key} leaves the class {class_name!r} out of the {set_name} set, of {count:,} examples in all; change "
            "data.fractions, split by something else, or let data.rare: keep do with a class in training alone."
        )
    message = f"data.fractions.{set_name} is too small: the class {class_name!r} has no example left in that set"
    way_out = "data.rare: keep, drop or merge takes rare classes" if count else "data.classes names it"
    raise InvalidInputError(f"{message}, of {count:,} in all; {way_out}.")


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
