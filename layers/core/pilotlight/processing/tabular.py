"""Turn records into rows of numbers: standardise columns, encode categories, fill in missing values.

The module knows a request's columns and the manifest's steps, not the model.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from pilotlight.api.written_numbers import MISSING_WORDS, CellError, parse_number
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.processing import TableColumn, TablePreprocessing
from pilotlight.errors import InvalidInputError
from pilotlight.observability import emf
from pilotlight.processing import input_validation
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array

NO_CATEGORY = -1.0  # an index that graphs which compare it with each category spread to zeros
WHOLE_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")
UNKNOWN_METRIC = "UnknownCategories"
MAX_LINES = 20  # of the log in a second, about unknown categories
BOOLEAN_WORDS = {
    "true": 1.0,
    "True": 1.0,
    "TRUE": 1.0,
    "false": 0.0,
    "False": 0.0,
    "FALSE": 0.0,
}  # spellings that are read as in training


def build_table_feeds(
    steps: TablePreprocessing, manifest: Manifest, tensors: Mapping[str, Array]
) -> Mapping[str, Array]:
    """Build the graph's table input, [batch, width]; an error names its column and row."""
    spec = next(spec for spec in manifest.inputs if spec.name == steps.input)
    columns = split_columns(steps, tensors)
    parts, unknown = [], dict[str, int]()
    for column in steps.columns:
        if not column.categories:
            parts.append(standardise_column(column, columns[column.name]))
            continue
        encoded, count = encode_categories(column, columns[column.name])
        parts.append(encoded)
        if count:
            unknown[column.name] = count
    if unknown:
        UNKNOWN_CATEGORIES.add(manifest, unknown)
    return {steps.input: join_columns(steps, parts, NUMPY_DTYPES[spec.datatype])}


def join_columns(steps: TablePreprocessing, parts: Sequence[Array], dtype: "np.dtype[Any]") -> Array:
    """Join the columns, float64 [batch, 1] or wider, in the graph's type; refuse a number that is infinite there."""
    joined = np.concatenate(parts, axis=1)
    with np.errstate(over="ignore"):
        cast = joined.astype(dtype)
    if dtype.kind == "f" and np.isinf(cast).any():
        row, place = np.argwhere(np.isinf(cast))[0]
        ends = np.cumsum([part.shape[1] for part in parts])
        column = steps.columns[int(np.searchsorted(ends, place, "right"))]
        raise build_cell_error(column, row, f"is {joined[row, place]:g} once scaled, beyond what {dtype.name} holds")
    return cast


def split_columns(steps: TablePreprocessing, tensors: Mapping[str, Array]) -> Mapping[str, Array]:
    """Split the tensors into each column's values, [batch], from a tensor for each column or from one for all."""
    names = [column.name for column in steps.columns]
    if steps.name in tensors and set(tensors) != set(names):
        table = tensors[steps.name]
        if table.ndim != 2 or table.shape[1] != len(names) or not table.size:
            expected = f"[batch, {len(names)}], the columns {names}"
            raise InvalidInputError(f"Input {steps.name!r} has shape {list(table.shape)}, expected {expected}.")
        return dict(zip(names, table.T, strict=True))
    columns = {name: input_validation.flatten_column(tensors[name], name) for name in names}
    for name, values in columns.items():
        if len(values) != len(columns[names[0]]):
            found = f"{name!r} has {len(values)} rows and {names[0]!r} {len(columns[names[0]])}"
            raise InvalidInputError(f"Columns differ in length: {found}; send one value for each record.")
    return columns


def standardise_column(column: TableColumn, values: Array) -> Array:
    """Compute (value - mean) / deviation in float64, [batch, 1]."""
    numbers = parse_numbers(column, values) if values.dtype == object else values.astype(np.float64)
    infinite = np.flatnonzero(np.isinf(numbers))
    if infinite.size:
        raise build_cell_error(column, infinite[0], "is infinite; send a finite number")
    missing = np.isnan(numbers)
    if missing.any():
        numbers = np.where(missing, float(get_fill_value(column, missing)), numbers)
    return ((numbers - column.mean) / column.deviation)[:, None]


def parse_numbers(column: TableColumn, values: Array) -> Array:
    """Parse numbers and booleans from text, as in a CSV body; a blank, NA and None are missing."""
    numbers = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        text = "" if value is None else str(value).strip()
        try:
            number = BOOLEAN_WORDS[text] if text in BOOLEAN_WORDS else parse_number(text)
        except CellError as exc:
            raise build_cell_error(column, row, f"is {text!r}, expected a number") from exc
        if number is not None:
            numbers[row] = float(number)
    return numbers


def encode_categories(column: TableColumn, values: Array) -> tuple[Array, int]:
    """Encode each value as its index among the categories, or as 0 and 1 for each category; float64, [batch, width].

    Also returns how many of the values are categories that training did not know.
    """
    texts = [format_category(value) for value in values.tolist()]
    codes = find_codes(column, texts)
    if codes.min() >= 0:
        return spread_codes(column, codes), 0
    missing = np.array([text in MISSING_WORDS for text in texts]) & (codes < 0)
    unknown = ~missing & (codes < 0)
    if missing.any():
        codes[missing] = get_fill_code(column, missing)
    if unknown.any():
        codes[unknown] = get_unknown_code(column, texts, unknown)
    return spread_codes(column, codes), int(unknown.sum())


def find_codes(column: TableColumn, texts: list[str]) -> Array:
    """Find the index of each text among the categories, `NO_CATEGORY` if it is none; float64, [batch].

    Other tools may write a category differently: 3.0 for 3 where a column had gaps, TRUE for True, without blanks.
    """
    places = {name: float(place) for place, name in enumerate(column.categories)}
    codes = np.array([places.get(text, NO_CATEGORY) for text in texts])
    if codes.min() >= 0:
        return codes
    alike: dict[str, list[float]] = {}
    for name, place in places.items():
        alike.setdefault(normalise_category(name), []).append(place)
    for row in np.flatnonzero(codes < 0):
        found = alike.get(normalise_category(texts[row]), [])
        if texts[row] and len(found) == 1:
            codes[row] = found[0]
    return codes


def normalise_category(text: str) -> str:
    """Return what all spellings of a category have in common."""
    text = text.strip()
    whole = WHOLE_NUMBER.fullmatch(text)
    return whole[1] if whole is not None else text.lower() if text in BOOLEAN_WORDS else text


def spread_codes(column: TableColumn, codes: Array) -> Array:
    """Return indices as a column; or as 0 and 1 for each category, all 0 for `NO_CATEGORY`."""
    if column.encoding == "index":
        return codes[:, None]
    return np.asarray(codes[:, None] == np.arange(len(column.categories)), np.float64)


def get_fill_code(column: TableColumn, missing: Array) -> float:
    """Return the index for missing cells: NaN where the graph is to treat them."""
    stand_in = get_fill_value(column, missing)
    return float(column.categories.index(str(stand_in))) if stand_in in column.categories else np.nan


def get_unknown_code(column: TableColumn, texts: list[str], unknown: Array) -> float:
    """Return the index for unknown categories; refuse them if the manifest says so, or has no stand-in."""
    is_missing = column.unknown == "missing"
    if is_missing and column.missing is not None:
        return get_fill_code(column, unknown)
    if column.unknown == "zeros" or (is_missing and column.encoding == "onehot"):
        return NO_CATEGORY
    row = int(unknown.argmax())
    raise build_cell_error(column, row, f"is {texts[row]!r}, which is none of {list(column.categories)}")


class UnknownCategoryCounter:
    """Counts cells with unknown categories, by model and column; what they hold is not written.

    Each request has its line in the log, until there are `MAX_LINES` within a second; the rest is counted together in
    a later line, since a file may have millions of such rows. What is pending when an environment ends is lost.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a counter."""
        self._clock = clock
        self._pending: dict[tuple[str, str, str], int] = {}
        self._second, self._lines = -1, 0

    def add(self, manifest: Manifest, counts: Mapping[str, int]) -> None:
        """Count cells of a request by column, and write the lines that are due."""
        for column, number in counts.items():
            key = manifest.name, str(manifest.version), column
            self._pending[key] = self._pending.get(key, 0) + number
        second = int(self._clock())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines < MAX_LINES:
            pending, self._pending = self._pending, {}
            self._lines += len(pending)
            emf.write_line("".join(format_unknown_line(*key, number) for key, number in pending.items()))


def format_unknown_line(model: str, version: str, column: str, number: int) -> str:
    """Format the line of the log for one column."""
    directive = emf.build_directive([UNKNOWN_METRIC], [["function"], ["function", "model", "column"]], "Count")
    line = {
        "_aws": {"Timestamp": time.time_ns() // 1_000_000, "CloudWatchMetrics": [directive]},
        "function": emf.FUNCTION,
        "model": model,
        "version": version,
        "column": column,
        UNKNOWN_METRIC: number,
    }
    return msgspec.json.encode(line).decode() + "\n"


UNKNOWN_CATEGORIES = UnknownCategoryCounter()


def format_category(value: object) -> str:
    """Format a category as text, integers without a point; None and NaN become empty, which is missing."""
    if value is None or value != value:  # only NaN differs from itself
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def get_fill_value(column: TableColumn, missing: Array) -> float | str:
    """Return the value for missing cells; refuse them if the manifest has none."""
    if column.missing is None:
        raise build_cell_error(column, int(missing.argmax()), "is missing, and the model takes no missing values there")
    return column.missing


def build_cell_error(column: TableColumn, row: int, reason: str) -> InvalidInputError:
    """Build the error for one cell."""
    return InvalidInputError(f"Column {column.name!r}, row {row}, {reason}.")
