"""What happens to a raw table before it is scaled, as layers of the graph, so that serving does it too."""

import numpy as np
import torch
from torch import nn

from functions.train.data import Array
from functions.train.data.encoding import Categories, build_one_hot_layout


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
