"""The targets of a data set: whether a column has classes or a number, and which classes they are."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from functions.train.data import Array
from pilotlight.contracts.metric import CLASS_METRICS, NUMBER_METRICS
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import UserDataOptions, format_alternatives

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


def parse_targets(raw_targets: Array, options: UserDataOptions, origin: RowLocator) -> ParsedTargets:
    """Parse targets (N,) of text, truth values or numbers, as the recipe or else their type determines."""
    distinct = np.unique(raw_targets)
    classes = is_class_target(distinct, options)
    check_target_metric(options, classification=classes)
    if not classes:
        return ParsedTargets(parse_numeric_targets(raw_targets, options, origin), (), options.metric or "r2")
    names = list_class_names(distinct, options)
    words = [format_class_name(value) for value in distinct]
    if unknown := [each for each in words if each not in names]:
        row = int(np.flatnonzero(raw_targets == distinct[words.index(unknown[0])])[0])
        said = f"{origin.describe_row(row)}: the target is {unknown[0]!r}"
        raise InvalidInputError(f"{said}, and data.classes has only {', '.join(names)}.")
    if len(distinct) < 2:
        raise InvalidInputError(f"{options.name}: the target is {words[0]!r} in every row; there is nothing to learn.")
    codes = np.array([names.index(each) for each in words], np.float64)
    return ParsedTargets(codes[np.searchsorted(distinct, raw_targets)], names, options.metric or "accuracy")


def is_class_target(distinct: Array, options: UserDataOptions) -> bool:
    """Return whether targets with these values are classes."""
    if options.task or options.classes:
        return options.task != "number"
    return distinct.dtype.kind in "Ub" or (distinct.dtype.kind in "iu" and len(distinct) <= MAX_INTEGER_CLASSES)


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
    return f"{value:g}" if isinstance(value, np.floating) else str(value)


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
    return values


def is_numeric_text(text: str) -> bool:
    """Return whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
