"""The convolutional network: 3x3 convolutions over an image that is halved on the way, then two dense layers."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from functions.train.models.image_shape import parse_image_shape
from pilotlight.recipes.schema import CnnOptions


def build_cnn_layers(options: CnnOptions, input_shape: tuple[int, ...], output_size: int) -> list[nn.Module]:
    """Build a small VGG (Simonyan and Zisserman, 2015) with batch normalisation (Ioffe and Szegedy, 2015).

    Images are halved after every block but the first, while two pixels are left to pool.
    """
    channels, height, width = parse_image_shape("cnn", input_shape)
    side, body = min(height, width), list[nn.Module]()
    for number, (before, after) in enumerate(pairwise((channels, *options.channels))):
        body += build_conv_block(before, after)
        if number and side >= 2:
            body.append(nn.MaxPool2d(2))
            side, height, width = side // 2, height // 2, width // 2
    return body + build_dense_head(options, options.channels[-1] * height * width, output_size)


def build_conv_block(in_channels: int, out_channels: int) -> Sequence[nn.Module]:
    """Build a block from (N, before, H, W) to (N, after, H, W); only the normalisation has a bias."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()


def build_dense_head(options: CnnOptions, features: int, output_size: int) -> list[nn.Module]:
    """Build the dense layers from (N, ...) of `features` values to (N, outputs)."""
    drop, hidden = options.dropout, options.hidden
    first = [nn.Flatten(), nn.Dropout(drop), nn.Linear(features, hidden), nn.ReLU()]
    return [*first, nn.Dropout(drop), nn.Linear(hidden, output_size)]
