"""What happens to a raw table before it is scaled: gaps are filled, and categories are one-hot encoded.

In numpy, to compute the statistics of the training set; `functions.train.models.table_layers` does the same in the
graph. It imports no torch.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from functions.train.data import Array

NO_CATEGORY = -1.0  # an index that gives only zeros
Categories = Sequence[Sequence[str]]  # of each column; a column of numbers has none


def build_one_hot_layout(categories: Categories) -> tuple[Array, Array, Array]:
    """Build for each column of the wider table: its source column, its category's index, and whether it has one."""
    parts = [
        (column, index, bool(known)) for column, known in enumerate(categories) for index in range(len(known) or 1)
    ]
    source, code, spread = zip(*parts, strict=True)
    return np.array(source, np.int64), np.array(code, np.float32), np.array(spread, bool)


def name_encoded_columns(features: Sequence[str], categories: Categories) -> tuple[str, ...]:
    """Name the columns of the wider table: `colour=red` for a category."""
    pairs = zip(features, categories or [()] * len(features), strict=True)
    return tuple(name for feature, words in pairs for name in ([f"{feature}={word}" for word in words] or [feature]))


def compute_fill_values(inputs: Array, categories: Categories, strategy: Literal["mean", "median"]) -> Array:
    """Compute what replaces a missing value in each column of a table (N, F); of a category, the most frequent one."""
    average = np.nanmean if strategy == "mean" else np.nanmedian
    present = [column[np.isfinite(column)] for column in inputs.T]
    values = [
        (np.bincount(column.astype(np.int64)).argmax() if words else average(column)) if len(column) else 0.0
        for column, words in zip(present, categories or [()] * inputs.shape[1], strict=True)
    ]
    return np.array(values, np.float32)


def encode_table(inputs: Array, categories: Categories, fill_values: Array | None) -> Array:
    """Fill the gaps of a table, and encode its categories."""
    if fill_values is not None:
        inputs = np.where(np.isnan(inputs), fill_values, inputs)
    if not any(categories):
        return inputs
    source, code, spread = build_one_hot_layout(categories)
    wide = inputs[:, source]
    return np.where(spread, (wide == code).astype(wide.dtype), wide)
