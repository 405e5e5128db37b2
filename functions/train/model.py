"""The architectures: from a recipe's words and the shape of the data to a torch module that answers with logits.

A module takes raw values, for the constants that scale them are part of it. It knows no loop and no file.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from functions.train.data import Array, Dataset
from functions.train.recipe import CnnOptions


class Standardise(nn.Module):
    """(x - mean) / deviation for each channel, by constants of the training set that travel with the weights."""

    mean: torch.Tensor  # (C, 1, 1)
    deviation: torch.Tensor  # (C, 1, 1)

    def __init__(self, images: Array) -> None:
        super().__init__()
        self.register_buffer("mean", constant(images.mean(axis=(0, 2, 3))))
        self.register_buffer("deviation", constant(images.std(axis=(0, 2, 3))).clamp_min(1e-6))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W), raw, to the same shape with mean 0 and variance 1 over the training set."""
        return (image - self.mean) / self.deviation


def constant(values: Array) -> torch.Tensor:
    """One number per channel, (C, 1, 1), that broadcasts over a batch of images."""
    return torch.from_numpy(np.asarray(values, np.float32)).reshape(-1, 1, 1)


def build(options: CnnOptions, train: Dataset) -> nn.Module:
    """An untrained model for data like `train`; seed torch before, since the weights are drawn here."""
    shape = train.inputs.shape[1:]
    body = ARCHITECTURES[options.architecture](options, shape, len(train.classes))
    return nn.Sequential(Standardise(train.inputs), *body)


def cnn(options: CnnOptions, shape: tuple[int, ...], classes: int) -> list[nn.Module]:
    """A small VGG (Simonyan and Zisserman, 2015) with batch normalisation (Ioffe and Szegedy, 2015).

    Images are halved after every block but the first, as long as two pixels are left to pool.
    """
    side, layers = min(shape[1:]), list[nn.Module]()
    height, width = shape[1:]
    for number, (before, after) in enumerate(pairwise((shape[0], *options.channels))):
        layers += block(before, after)
        if number and side >= 2:
            layers.append(nn.MaxPool2d(2))
            side, height, width = side // 2, height // 2, width // 2
    return layers + head(options, options.channels[-1] * height * width, classes)


def block(before: int, after: int) -> Sequence[nn.Module]:
    """(N, before, H, W) to (N, after, H, W). The convolution has no bias: the normalisation brings one."""
    return nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()


def head(options: CnnOptions, features: int, classes: int) -> list[nn.Module]:
    """(N, ...) of `features` values to (N, classes) logits."""
    drop, hidden = options.dropout, options.hidden
    first = [nn.Flatten(), nn.Dropout(drop), nn.Linear(features, hidden), nn.ReLU()]
    return [*first, nn.Dropout(drop), nn.Linear(hidden, classes)]


ARCHITECTURES: Mapping[str, Callable[[CnnOptions, tuple[int, ...], int], list[nn.Module]]] = {"cnn": cnn}
