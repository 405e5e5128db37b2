"""What happens to a raw table before it is scaled: gaps are filled, and categories are one-hot encoded.

As layers of the graph, so that serving does it too, and the same in numpy, to compute the statistics of the training
set.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import nn

from functions.train.data import Array

NO_CATEGORY = -1.0  # an index that gives only zeros
Categories = Sequence[Sequence[str]]  # of each column; a column of numbers has none


class FillMissing(nn.Module):
    """(N, F) with NaN for what is missing, to the same with a constant of each column in its place."""

    values: torch.Tensor  # (F,)

    def __init__(self, values: Array) -> None:
        super().__init__()
        self.register_buffer("values", torch.from_numpy(np.asarray(values, np.float32)))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Fill the gaps; the shape stays."""
        return torch.where(torch.isnan(inputs), self.values, inputs)


class OneHotEncode(nn.Module):
    """(N, F) to (N, W): a column of K categories becomes K columns, 1 where the index is theirs and 0 elsewhere.

    An index that no category has gives only zeros.
    """

    source: torch.Tensor  # int64 (W,), the column that each is made of
    code: torch.Tensor  # (W,), the category's index
    spread: torch.Tensor  # bool (W,), whether the column is a category's

    def __init__(self, categories: Categories) -> None:
        super().__init__()
        source, code, spread = build_one_hot_layout(categories)
        self.register_buffer("source", torch.from_numpy(source))
        self.register_buffer("code", torch.from_numpy(code))
        self.register_buffer("spread", torch.from_numpy(spread))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Encode the categories into the wider table."""
        wide = inputs[:, self.source]
        return torch.where(self.spread, (wide == self.code).to(wide.dtype), wide)


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
    """Apply `FillMissing` and `OneHotEncode` to a table."""
    if fill_values is not None:
        inputs = np.where(np.isnan(inputs), fill_values, inputs)
    if not any(categories):
        return inputs
    source, code, spread = build_one_hot_layout(categories)
    wide = inputs[:, source]
    return np.where(spread, (wide == code).astype(wide.dtype), wide)
