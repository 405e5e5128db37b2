"""What right answers mean for a graph: classes by index, by name or as rows of 0 and 1, or numbers.

What is wrong with them is said with the row. Where the graph's outputs leave open what they would be compared with,
nothing is guessed: then only the agreement of the variants is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from functions.train.data import Array
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.datatypes import cast_numbers

MAX_NAMED = 5  # labels that an error lists
MAX_DIGITS = 18  # of a class that is written as text; no graph has so many


@dataclass(frozen=True, eq=False)
class RightAnswers:
    """Right answers as scores are computed from them."""

    values: Array  # int64 (N,), or (N, T) for each token; without classes float32 (N, 1)
    classes: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """The metric that judges them."""
        return "accuracy" if self.classes else "r2"


@dataclass(frozen=True)
class Unjudged:
    """Why right answers cannot be compared with what the graph gives: a sentence without its full stop."""

    reason: str


def interpret_answers(file: str, values: Array, scores: Array, labels: Sequence[str] = ()) -> RightAnswers | Unjudged:
    """Interpret the right answers, (N, ...), by a sample of the graph's (examples first); `InvalidInputError` if wrong.

    `scores` are what the graph gives in the output that is judged.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    shape = scores.shape[1:]
    if scores.dtype.kind in "iu" and scores.size == len(scores):
        if values.ndim > 1:
            return interpret_rows(file, values, len(labels) or find_width(values), labels)
        return interpret_classes(file, values, max(len(labels), find_largest(values) + 1), labels, is_open=True)
    if scores.dtype.kind != "f" or len(shape) > 2 or 0 in shape:
        return Unjudged(f"answers of shape {[*shape]} for each example have no right ones that are known here")
    if not shape or shape == (1,):
        return interpret_numbers(file, values)
    if len(shape) == 2 and values.shape[1:] != shape[:1]:
        return Unjudged(f"the graph gives {list(shape)} numbers for each example, the file {list(values.shape[1:])}")
    if values.ndim == 2 and len(shape) == 1:
        return interpret_rows(file, values, shape[0], labels)
    if values.ndim != len(shape):
        return Unjudged(
            f"the right answers have {find_width(values)} values for each example, the graph gives one class"
        )
    return interpret_classes(file, values, shape[-1], labels)


def find_width(values: Array) -> int:
    """Find how many values each example has."""
    return prod(values.shape[1:])


def find_largest(values: Array) -> int:
    """Find the largest class; 0 if they are not numbers."""
    return int(values.max(initial=0)) if values.dtype.kind in "iub" else 0


def interpret_classes(
    file: str, values: Array, count: int, labels: Sequence[str], *, is_open: bool = False
) -> RightAnswers:
    """Interpret classes of `count`, which more of them may raise if it is open."""
    indices = to_indices(file, values, count, labels)
    if (indices < 0).any():
        indices = shift_signs(file, indices, count)
    largest = int(indices.max(initial=0))
    if largest >= count:
        if not is_open:
            row = np.argwhere(indices == largest)[0][0]
            raise InvalidInputError(
                f"{file}: the right answers go up to class {largest}, in row {row}, and the graph gives scores for "
                f"{count} classes, of which the first is 0; mend them, or leave such rows out."
            )
        count = largest + 1
    names = tuple(labels) if len(labels) == count else tuple(map(str, range(count)))
    return RightAnswers(indices, names)


def to_indices(file: str, values: Array, count: int, labels: Sequence[str]) -> Array:
    """Convert classes to whole numbers: texts by the labels, floats that are whole."""
    if values.dtype.kind == "U":
        return look_up_labels(file, values, count, labels)
    indices, wrong = cast_numbers(values, np.dtype(np.int64))
    if wrong is not None:
        raise build_class_error(file, values, wrong, count)
    return indices


def build_class_error(file: str, values: Array, place: int, count: int) -> InvalidInputError:
    """Build the error of a right answer, at this place of the flat array, that is no class."""
    return InvalidInputError(
        f"{file}: the right answer of row {np.unravel_index(place, values.shape)[0]} is "
        f"{str(values.flat[place])[:40]}, and the graph gives scores for {count} classes; a class is "
        "a whole number from 0, or a label."
    )


def look_up_labels(file: str, values: Array, count: int, labels: Sequence[str]) -> Array:
    """Look texts up among the labels; without labels, texts of digits are indices."""
    known = {label: place for place, label in enumerate(labels)}
    if not known:
        if all(text.strip().removeprefix("-").isdecimal() for text in values.flat):
            if long := [place for place, text in enumerate(values.flat) if len(text.strip()) > MAX_DIGITS]:
                raise build_class_error(file, values, long[0], count)
            return np.array([int(text) for text in values.flat], np.int64).reshape(values.shape)
        raise InvalidInputError(
            f"{file}: the right answers are texts such as {str(values.flat[0])!r}, and the model has no labels; give "
            f"--labels FILE with its {count} classes, one in a line."
        )
    for place, text in enumerate(values.flat):
        if text not in known and text.strip() not in known:
            listed = ", ".join(map(repr, list(known)[:MAX_NAMED])) + (", ..." if len(known) > MAX_NAMED else "")
            row = np.unravel_index(place, values.shape)[0]
            raise InvalidInputError(f"{file}: row {row} is {str(text)!r}, which is no label of the model: {listed}.")
    return np.array([known.get(t, known.get(t.strip(), 0)) for t in values.flat], np.int64).reshape(values.shape)


def shift_signs(file: str, indices: Array, count: int) -> Array:
    """Read -1 and 1 as the classes 0 and 1 of two; refuse any other negative class."""
    if count == 2 and set(np.unique(indices)) <= {-1, 1}:
        return (indices + 1) // 2
    place = int(np.flatnonzero(indices < 0)[0])
    raise InvalidInputError(
        f"{file}: the right answer of row {np.unravel_index(place, indices.shape)[0]} is {indices.flat[place]}; "
        "classes count from 0, and rows whose class is not known are to be left out."
    )


def interpret_rows(file: str, values: Array, count: int, labels: Sequence[str]) -> RightAnswers | Unjudged:
    """Interpret rows with as many values as there are classes: a single 1 among zeros is the class."""
    width = find_width(values)
    if values.dtype.kind == "U" or width != count or values.ndim != 2:
        return Unjudged(f"the right answers have {width} values for each example, the graph gives {count}")
    ones = (values == 1).sum(axis=1)
    if ((values == 0).sum(axis=1) + ones == width).all() and (ones == 1).all():
        return interpret_classes(file, values.argmax(axis=1), count, labels)
    return Unjudged(f"the right answers are {width} numbers for each example, of which only one could be judged")


def interpret_numbers(file: str, values: Array) -> RightAnswers | Unjudged:
    """Interpret right answers of a graph that gives one number."""
    if values.dtype.kind == "U":
        return Unjudged("the right answers are texts, and the graph gives one number for each example")
    if values.ndim != 1:
        return Unjudged(f"the right answers have {values.shape[1]} values for each example, the graph gives one")
    numbers = values.astype(np.float32).reshape(-1, 1)
    if len(wrong := np.flatnonzero(~np.isfinite(numbers))):
        raise InvalidInputError(
            f"{file}: the right answer of row {wrong[0]} is {numbers.flat[wrong[0]]}; leave it out."
        )
    if (numbers == numbers[0]).all():
        return Unjudged("all right answers are the same number, by which nothing can be told apart")
    return RightAnswers(numbers)
