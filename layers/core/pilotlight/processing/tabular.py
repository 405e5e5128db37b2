"""Turn records into rows of numbers: standardise columns, encode categories, fill in missing values.

The module knows a request's columns and the manifest's steps, not the model.
"""

from collections.abc import Mapping

import numpy as np

from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.processing import TableColumn, TablePreprocessing
from pilotlight.errors import InvalidInputError
from pilotlight.processing import input_validation
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array

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
    parts = [
        (encode_categories if column.categories else standardise_column)(column, columns[column.name])
        for column in steps.columns
    ]
    return {steps.input: np.concatenate(parts, axis=1).astype(NUMPY_DTYPES[spec.datatype])}


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
    """Parse numbers and booleans from text, as in a CSV file; a blank or None is missing."""
    numbers = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        text = "" if value is None else str(value).strip()
        try:
            numbers[row] = BOOLEAN_WORDS[text] if text in BOOLEAN_WORDS else float(text) if text else np.nan
        except ValueError as exc:
            raise build_cell_error(column, row, f"is {text!r}, expected a number") from exc
    return numbers


def encode_categories(column: TableColumn, values: Array) -> Array:
    """Encode each value as its index among the categories, or as 0 and 1 for each category; float64, [batch, width]."""
    texts = [format_category(value) for value in values.tolist()]
    missing = np.array([not text for text in texts]) if "" not in column.categories else np.zeros(len(texts), bool)
    if missing.any():
        stand_in = str(get_fill_value(column, missing))
        texts = [text or stand_in for text in texts]
    places = {name: place for place, name in enumerate(column.categories)}
    for row, text in enumerate(texts):
        if text not in places:
            raise build_cell_error(column, row, f"is {text!r}, which is none of {list(column.categories)}")
    codes = np.array([places[text] for text in texts])
    return np.eye(len(places))[codes] if column.encoding == "onehot" else codes[:, None].astype(np.float64)


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
