"""The recurrent network: an LSTM (Hochreiter and Schmidhuber, 1997) or GRU (Cho et al., 2014) over an image's rows.

Built-in layers alone, since the exporter turns only those into one LSTM or GRU node; a loop in Python is unrolled to
the length of the example, or fixed to it.
"""

from collections.abc import Mapping

import torch
from torch import nn

from functions.train.models.image_shape import parse_image_shape
from pilotlight.recipes.schema import RnnOptions

CELL_TYPES: Mapping[str, type[nn.LSTM | nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


def build_rnn_layers(options: RnnOptions, input_shape: tuple[int, ...], output_size: int) -> list[nn.Module]:
    """Build (N, C, H, W) to (N, outputs): the image's H rows in sequence, then a dense layer."""
    channels, _, width = parse_image_shape("rnn", input_shape)
    directions = 1 + options.bidirectional
    drop, dense = nn.Dropout(options.dropout), nn.Linear(directions * options.hidden, output_size)
    return [ImageRows(), RecurrentEncoder(options, channels * width), drop, dense]


class ImageRows(nn.Module):
    """An image as the sequence of its rows."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, H, C * W)."""
        return image.transpose(1, 2).flatten(2)


class RecurrentEncoder(nn.Module):
    """The output of the last layer after the last step, in both directions where there are two."""

    def __init__(self, options: RnnOptions, features: int) -> None:
        super().__init__()
        self.directions = 1 + options.bidirectional
        self.cell = CELL_TYPES[options.cell](
            features,
            options.hidden,
            options.layers,
            batch_first=True,
            dropout=options.dropout if options.layers > 1 else 0.0,  # it goes between layers; torch warns without any
            bidirectional=options.bidirectional,
        )

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        """Map (N, T, F) to (N, directions * hidden)."""
        _, state = self.cell(sequence)
        last = state[0] if isinstance(state, tuple) else state  # an LSTM has a cell state too; (layers * D, N, hidden)
        return torch.cat(list(last[-self.directions :]), dim=1)
