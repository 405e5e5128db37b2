"""What is to be answered: whether a column means classes or a number, and which classes they are.

It knows answers and the recipe's words for them, not where they were read.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pilotlight.errors import InvalidInputError
from pilotlight.recipes.options.data import OwnOptions

Array = np.ndarray[Any, Any]
FEW = 20  # different whole numbers at most that are taken for classes, unless the recipe says what they are


class Origin(Protocol):
    """Who knows where a row comes from."""

    def place(self, row: int) -> str:
        """Where a row, from 0, stands, in words."""


@dataclass(frozen=True, eq=False)
class Targets:
    """Answers, understood."""

    values: Array  # float64 (N,): indices into classes, or the numbers themselves
    classes: tuple[str, ...]
    metric: str  # what a model is judged by that gives them


def understood(answers: Array, options: OwnOptions, origin: Origin) -> Targets:
    """Answers (N,) of text, truth values or numbers, as the recipe or else their type says."""
    distinct = np.unique(answers)
    classes = means_classes(distinct, options)
    check_metric(options, classes=classes)
    if not classes:
        return Targets(numbers(answers, options, origin), (), options.metric or "r2")
    names = named(distinct, options)
    words = [word(value) for value in distinct]
    if odd := [each for each in words if each not in names]:
        row = int(np.flatnonzero(answers == distinct[words.index(odd[0])])[0])
        said = f"{origin.place(row)}: the target is {odd[0]!r}"
        raise InvalidInputError(f"{said}, and data.classes has only {', '.join(names)}.")
    if len(distinct) < 2:
        raise InvalidInputError(f"{options.name}: the target is {words[0]!r} in every row; there is nothing to learn.")
    codes = np.array([names.index(each) for each in words], np.float64)
    return Targets(codes[np.searchsorted(distinct, answers)], names, options.metric or "accuracy")


def means_classes(distinct: Array, options: OwnOptions) -> bool:
    """Whether answers that take these values are classes."""
    if options.task or options.classes:
        return options.task != "number"
    return distinct.dtype.kind in "Ub" or (distinct.dtype.kind in "iu" and len(distinct) <= FEW)


def check_metric(options: OwnOptions, *, classes: bool) -> None:
    """Refuse a metric of the other kind of answers, before anything is trained."""
    if options.metric is not None and (options.metric == "r2") == classes:
        kind, others = ("classes", "accuracy or balanced_accuracy") if classes else ("a number", "r2")
        said = f"data.metric is {options.metric!r}, and the target {options.target or 'sub-folder'!r} is {kind}"
        raise InvalidInputError(f"{said}; it must be {others}, or data.task tell what the target is.")


def named(distinct: Array, options: OwnOptions) -> tuple[str, ...]:
    """The classes in the order of the outputs."""
    return options.classes or tuple(word(value) for value in distinct)


def word(value: Any) -> str:  # noqa: ANN401 - a scalar of numpy's
    """A class's name."""
    if isinstance(value, np.bool_):
        return str(bool(value)).lower()
    return f"{value:g}" if isinstance(value, np.floating) else str(value)


def numbers(answers: Array, options: OwnOptions, origin: Origin) -> Array:
    """Answers as numbers, which must be finite and not all the same."""
    try:
        values = answers.astype(np.float64)
    except ValueError as exc:
        row = next(row for row, each in enumerate(answers) if not readable(str(each)))
        said = f"{origin.place(row)}: the target is {str(answers[row])!r}"
        raise InvalidInputError(f"{said}; data.task is number, and that is none.") from exc
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InvalidInputError(f"{origin.place(row)}: the target is {values[row]}; drop the row, or mend it.")
    if np.ptp(values) == 0:
        raise InvalidInputError(f"{options.name}: the target is {values[0]:g} in every row; there is nothing to learn.")
    return values


def readable(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
