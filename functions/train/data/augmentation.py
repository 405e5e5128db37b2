"""Augmentation: random changes to the training set's images, drawn anew in each pass.

A whole batch is changed at once, on its own device and by torch's random numbers there, whose state checkpoints
include. Only training batches are augmented, nothing that is evaluated, calibrated or recorded.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import affine_grid, grid_sample

from functions.train.models.image_shape import describe_shape
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import AugmentationOptions


@dataclass(frozen=True)
class Augmentation:
    """What a recipe does to images (N, C, H, W)."""

    options: AugmentationOptions

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Change each image of a batch independently."""
        options, count, device = self.options, len(images), images.device
        if options.shift or options.rotate or options.flip:
            turns = (2 * torch.rand(count, device=device) - 1) * math.radians(options.rotate)
            shifts = torch.randint(-options.shift, options.shift + 1, (count, 2), device=device).float()
            mirrored = torch.rand(count, device=device) < 0.5 if options.flip else torch.zeros_like(turns).bool()
            images = transform_images(images, turns, shifts, mirrored)
        return images + options.noise * torch.randn_like(images) if options.noise else images


def build_augmentation(options: AugmentationOptions | None, shape: tuple[int, ...]) -> Augmentation | None:
    """Build a recipe's augmentation for examples of this shape; `InvalidInputError` when they are not images."""
    if options is None:
        return None
    if len(shape) != 3:
        raise InvalidInputError(f"augmentation is for images, not for {describe_shape(shape)}.")
    return Augmentation(options)


def transform_images(
    images: torch.Tensor, turns: torch.Tensor, shifts: torch.Tensor, mirrored: torch.Tensor
) -> torch.Tensor:
    """Mirror the images, rotate them to the left by angles in radians, then shift them down and right by pixels (N, 2).

    Zeros enter from outside; values between pixels are interpolated linearly. affine_grid takes the origin of each new
    pixel, in units of half the image's sides, so this computes the inverse: unshift, unturn, mirror.
    """
    height, width = images.shape[2:]
    cosine, sine = torch.cos(turns), torch.sin(turns)
    sign = torch.where(mirrored, -1.0, 1.0)
    down, right = 2 * shifts[:, 0] / height, 2 * shifts[:, 1] / width
    across = torch.stack([cosine, -sine * height / width], dim=1) * sign[:, None]
    along = torch.stack([sine * width / height, cosine], dim=1)
    turned = torch.stack([across, along], dim=1)
    start = -(turned @ torch.stack([right, down], dim=1)[:, :, None])
    grid = affine_grid(torch.cat([turned, start], dim=2), list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="zeros", align_corners=False)
