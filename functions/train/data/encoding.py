"""What happens to a raw table before it is scaled: gaps are filled, categories are spread over columns of their own.

Inside the graph, so that serving does it too. The same in numpy, for what has to be known of the training set first.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

Array = np.ndarray[Any, Any]
Categories = Sequence[Sequence[str]]  # of each column; a column of numbers has none


class Fill(nn.Module):
    """(N, F) with NaN for what is missing, to the same with a constant of each column in its place."""

    values: torch.Tensor  # (F,)

    def __init__(self, values: Array) -> None:
        super().__init__()
        self.register_buffer("values", torch.from_numpy(np.asarray(values, np.float32)))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Of the same shape, without NaN."""
        return torch.where(torch.isnan(inputs), self.values, inputs)


class Spread(nn.Module):
    """(N, F) to (N, W): a column of K categories becomes K columns, 1 where the index is theirs and 0 elsewhere.

    An index that is no category's gives zeros alone.
    """

    source: torch.Tensor  # int64 (W,), the column that each is made of
    code: torch.Tensor  # (W,), the index that it stands for
    spread: torch.Tensor  # bool (W,), whether it stands for one

    def __init__(self, categories: Categories) -> None:
        super().__init__()
        source, code, spread = layout(categories)
        self.register_buffer("source", torch.from_numpy(source))
        self.register_buffer("code", torch.from_numpy(code))
        self.register_buffer("spread", torch.from_numpy(spread))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The wider table."""
        wide = inputs[:, self.source]
        return torch.where(self.spread, (wide == self.code).to(wide.dtype), wide)


def layout(categories: Categories) -> tuple[Array, Array, Array]:
    """For each column of the wider table: of which column it is made, for which index, and whether it has one."""
    parts = [
        (column, index, bool(known)) for column, known in enumerate(categories) for index in range(len(known) or 1)
    ]
    source, code, spread = zip(*parts, strict=True)
    return np.array(source, np.int64), np.array(code, np.float32), np.array(spread, bool)


def names(features: Sequence[str], categories: Categories) -> tuple[str, ...]:
    """What the columns of the wider table are called: `colour=red` for a category."""
    known = zip(features, categories or [()] * len(features), strict=True)
    return tuple(name for feature, words in known for name in ([f"{feature}={word}" for word in words] or [feature]))


def filling(inputs: Array, categories: Categories, strategy: Literal["mean", "median"]) -> Array:
    """What stands for a missing value in each column of a table (N, F), learned from it; a category by frequency."""
    of_numbers = np.nanmean if strategy == "mean" else np.nanmedian
    known = [column[np.isfinite(column)] for column in inputs.T]
    values = [
        (np.bincount(column.astype(np.int64)).argmax() if words else of_numbers(column)) if len(column) else 0.0
        for column, words in zip(known, categories or [()] * inputs.shape[1], strict=True)
    ]
    return np.array(values, np.float32)


def prepared(inputs: Array, categories: Categories, fill: Array | None) -> Array:
    """What `Fill` and `Spread` make of a table."""
    if fill is not None:
        inputs = np.where(np.isnan(inputs), fill, inputs)
    if not any(categories):
        return inputs
    source, code, spread = layout(categories)
    wide = inputs[:, source]
    return np.where(spread, (wide == code).astype(wide.dtype), wide)
