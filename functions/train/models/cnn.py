"""The convolutional network: 3x3 convolutions over an image that is halved on the way, then two dense layers."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from functions.train.models import shape as shapes
from pilotlight.recipes.options.model import CnnOptions


def layers(options: CnnOptions, shape: tuple[int, ...], outputs: int) -> list[nn.Module]:
    """A small VGG (Simonyan and Zisserman, 2015) with batch normalisation (Ioffe and Szegedy, 2015).

    Images are halved after every block but the first, as long as two pixels are left to pool.
    """
    channels, height, width = shapes.image("cnn", shape)
    side, body = min(height, width), list[nn.Module]()
    for number, (before, after) in enumerate(pairwise((channels, *options.channels))):
        body += block(before, after)
        if number and side >= 2:
            body.append(nn.MaxPool2d(2))
            side, height, width = side // 2, height // 2, width // 2
    return body + head(options, options.channels[-1] * height * width, outputs)


def block(before: int, after: int) -> Sequence[nn.Module]:
    """(N, before, H, W) to (N, after, H, W). The convolution has no bias: the normalisation brings one."""
    return nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()


def head(options: CnnOptions, features: int, outputs: int) -> list[nn.Module]:
    """(N, ...) of `features` values to (N, outputs)."""
    drop, hidden = options.dropout, options.hidden
    first = [nn.Flatten(), nn.Dropout(drop), nn.Linear(features, hidden), nn.ReLU()]
    return [*first, nn.Dropout(drop), nn.Linear(hidden, outputs)]
