"""The targets of a data set: whether a column has classes or a number, and which classes they are."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from functions.train.data import Array
from pilotlight.contracts.metric import CLASS_METRICS, NUMBER_METRICS
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import UserDataOptions, format_alternatives

LEADING_ZERO = re.compile(r"\s*[+-]?0\d")  # of a code, such as a postal one
LARGEST, SMALLEST = 1e30, 1e-30  # numbers whose differences are scaled in float32 without over- or underflow
MAX_NAMED_CLASSES = 10  # classes that a line names
MAX_INTEGER_CLASSES = 20  # different whole numbers at most that are classes, unless the recipe defines them


class RowLocator(Protocol):
    """Describes where a row comes from."""

    def describe_row(self, row: int) -> str:
        """Describe where a row, counted from 0, comes from."""


@dataclass(frozen=True, eq=False)
class ParsedTargets:
    """The targets of a data set, as a model needs them."""

    values: Array  # float64 (N,): indices into classes, or the numbers themselves
    classes: tuple[str, ...]
    metric: str  # the metric by which a model with these targets is judged
    note: str = ""  # what they were taken for, and why


def parse_targets(
    raw_targets: Array, options: UserDataOptions, origin: RowLocator, row_count: int | None = None
) -> ParsedTargets:
    """Parse targets (N,) of text, truth values or numbers, as the recipe or else their type determines.

    Where they are only the different ones of a stream, `row_count` is how many examples it has.
    """
    distinct = np.unique(raw_targets)
    classes, reason = decide_target_kind(distinct, options, row_count or len(raw_targets))
    check_target_metric(options, classification=classes)
    if not classes:
        values = parse_numeric_targets(raw_targets, options, origin)
        return ParsedTargets(values, (), options.metric or "r2", describe_number(values, options, reason))
    names = list_class_names(distinct, options)
    words = [format_class_name(value) for value in distinct]
    if unknown := [each for each in words if each not in names]:
        row = int(np.flatnonzero(raw_targets == distinct[words.index(unknown[0])])[0])
        said = f"{origin.describe_row(row)}: the target is {unknown[0]!r}"
        raise InvalidInputError(f"{said}, and data.classes has only {', '.join(names)}.")
    if len(distinct) < 2:
        raise InvalidInputError(f"{options.name}: the target is {words[0]!r} in every row; there is nothing to learn.")
    codes = np.array([names.index(each) for each in words], np.float64)
    values, metric = codes[np.searchsorted(distinct, raw_targets)], options.metric or "accuracy"
    return ParsedTargets(values, names, metric, describe_classes(names, options, reason))


def is_class_target(distinct: Array, options: UserDataOptions) -> bool:
    """Return whether targets with these values are classes."""
    return decide_target_kind(distinct, options)[0]


def decide_target_kind(distinct: Array, options: UserDataOptions, row_count: int | None = None) -> tuple[bool, str]:
    """Decide whether targets with these values are classes, and why; a count of rows tells whether values repeat."""
    if options.task or options.classes:
        return options.task != "number", f"as data.{'task' if options.task else 'classes'} says"
    if options.target is None:
        return True, "as folders are"
    if distinct.dtype.kind == "b":
        return True, "since they are truth values"
    if distinct.dtype.kind == "U":
        return decide_text_kind(distinct)
    if distinct.dtype.kind == "f" and not is_whole(distinct):
        return False, "since they are not all whole"
    if len(distinct) > MAX_INTEGER_CLASSES:
        return False, f"since there are {len(distinct):,} different ones, more than {MAX_INTEGER_CLASSES}"
    if distinct.dtype.kind == "f" and row_count is not None and row_count < 2 * len(distinct):
        return False, "since few of them occur twice"
    return True, "since its numbers are whole and few"


def decide_text_kind(distinct: Array) -> tuple[bool, str]:
    """Decide whether texts are classes: not where all are numbers without leading zeros, of any amount or many."""
    words = distinct.tolist()
    if not all(is_numeric_text(word) and not LEADING_ZERO.match(word) for word in words):
        return True, "since it is text"
    if not is_whole(distinct.astype(np.float64)):
        return False, "since its texts are numbers, and not all whole"
    if len(distinct) > MAX_INTEGER_CLASSES:
        return False, f"since its texts are {len(distinct):,} different numbers, more than {MAX_INTEGER_CLASSES}"
    return True, "since it is text, of few whole numbers"


def is_whole(numbers: Array) -> bool:
    """Return whether all of these numbers are finite and whole."""
    return bool(np.isfinite(numbers).all() and (np.rint(numbers) == numbers).all())


def describe_classes(names: Sequence[str], options: UserDataOptions, reason: str) -> str:
    """Describe in a line that targets are classes, and what to do if they are not."""
    listed = ", ".join(names[:MAX_NAMED_CLASSES])
    listed += f" and {len(names) - MAX_NAMED_CLASSES:,} more" if len(names) > MAX_NAMED_CLASSES else ""
    said = f"{describe_target(options)}: {len(names):,} classes ({listed}), {reason}"
    numeric = options.task is None and not options.classes and all(map(is_numeric_text, names))
    return said + ("; data.task: number makes it a number" if numeric else "")


def describe_number(values: Array, options: UserDataOptions, reason: str) -> str:
    """Describe in a line that targets are numbers, and what to do if they are not."""
    said = f"{describe_target(options)}: a number from {values.min():g} to {values.max():g}, {reason}"
    return said + ("" if options.task else "; data.task: classes makes it classes")


def describe_target(options: UserDataOptions) -> str:
    """Describe what is predicted."""
    return "target: the folder of an image" if options.target is None else f"target {options.target!r}"


def check_target_metric(options: UserDataOptions, *, classification: bool) -> None:
    """Refuse a metric of the other kind of targets, before anything is trained."""
    if options.metric is not None and (options.metric in NUMBER_METRICS) == classification:
        kind, metrics = ("classes", CLASS_METRICS) if classification else ("a number", NUMBER_METRICS)
        others = format_alternatives(list(metrics))
        said = f"data.metric is {options.metric!r}, and the target {options.target or 'sub-folder'!r} is {kind}"
        raise InvalidInputError(f"{said}; it must be {others}, or data.task tell what the target is.")


def list_class_names(distinct: Array, options: UserDataOptions) -> tuple[str, ...]:
    """List the classes in the order of the outputs."""
    return options.classes or tuple(format_class_name(value) for value in distinct)


def format_class_name(value: Any) -> str:  # noqa: ANN401 - a scalar of numpy's
    """Format the name of a class."""
    if isinstance(value, np.bool_):
        return str(bool(value)).lower()
    return np.format_float_positional(value, trim="-") if isinstance(value, np.floating) else str(value)


def parse_numeric_targets(raw_targets: Array, options: UserDataOptions, origin: RowLocator) -> Array:
    """Parse targets as numbers, which must be finite and not all the same."""
    try:
        values = raw_targets.astype(np.float64)
    except ValueError as exc:
        row = next(row for row, each in enumerate(raw_targets) if not is_numeric_text(str(each)))
        said = f"{origin.describe_row(row)}: the target is {str(raw_targets[row])!r}"
        raise InvalidInputError(f"{said}; data.task is number, and that is none.") from exc
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InvalidInputError(f"{origin.describe_row(row)}: the target is {values[row]}; drop the row, or mend it.")
    if np.ptp(values) == 0:
        raise InvalidInputError(f"{options.name}: the target is {values[0]:g} in every row; there is nothing to learn.")
    check_number_range(values, "the target", origin)
    if loses_digits(values):
        raise InvalidInputError(
            f"{options.name}: the target differs by too little, from {values.min():.17g} to {values.max():.17g}, for "
            f"the 24 bits that a model computes with; subtract a constant from it, such as {values.min():.17g}."
        )
    return values


def check_number_range(values: Array, what: str, origin: RowLocator) -> None:
    """Refuse finite numbers that are too large or too small to be scaled in float32, which models compute in."""
    sizes = np.abs(values)
    with np.errstate(invalid="ignore"):
        large = np.flatnonzero((sizes > LARGEST) & (sizes < np.inf))
    if len(large):
        raise InvalidInputError(
            f"{origin.describe_row(int(large[0]))}: {what} is {values[large[0]]:g}, beyond the {LARGEST:g} that can be "
            "learned from; take another unit, or its logarithm."
        )
    most = float(sizes[np.isfinite(sizes)].max(initial=0))
    if 0 < most < SMALLEST:
        raise InvalidInputError(
            f"{origin.describe_row(int(np.nanargmax(sizes)))}: {what} is {most:g} at most, below the {SMALLEST:g} that "
            "can be told from 0; take another unit."
        )


def loses_digits(values: Array) -> bool:
    """Return whether most values, float64, are no longer told apart as float32."""
    present = values[np.isfinite(values)]
    return 2 * len(np.unique(present.astype(np.float32))) < len(np.unique(present))


def is_numeric_text(text: str) -> bool:
    """Return whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # as Python alone writes numbers
