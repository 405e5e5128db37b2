"""How an image of the caller lies in the graph's input: its size once resized, where it is padded or cut.

A finish that answers boxes or masks needs the way back to the caller's pixels. The module knows numbers, not pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pilotlight.contracts.processing import ImagePreprocessing
from pilotlight.runtime.datatypes import Array

Size = tuple[int, int]  # (width, height)


@dataclass(frozen=True, slots=True)
class ImageGeometry:
    """The place of an image in the graph's input: x * scale + left, in pixels."""

    width: int  # of the caller's image, upright
    height: int
    scale_x: float = 1.0  # pixels of the graph for each of the caller's
    scale_y: float = 1.0
    left: float = 0.0  # where the caller's first column lies in the graph's input; negative if it is cut off
    top: float = 0.0

    def restore_boxes(self, boxes: Array) -> Array:
        """Convert boxes of (left, top, right, bottom) to the caller's pixels, cut at the image's edges."""
        offset = np.array([self.left, self.top] * 2)
        scale = np.array([self.scale_x, self.scale_y] * 2)
        limit = np.array([self.width, self.height] * 2)
        return np.asarray(((boxes - offset) / scale).clip(0, limit))


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """The sizes that an image takes on its way to the graph, and where it lies in the last of them."""

    size: Size  # of the caller's image, upright
    padded: Size  # before it is resized
    resized: Size
    canvas: Size  # of the graph's input; an image may still be padded to the widest of a request
    left: int  # of the resized image on the canvas; negative if it is cut off
    top: int
    geometry: ImageGeometry


def plan_image(steps: ImagePreprocessing, size: Size) -> ImagePlan:
    """Plan what becomes of an image of this size."""
    padded = compute_padded_size(steps, size)
    resized = compute_resized_size(steps, padded)
    canvas = resized
    left = top = 0
    if steps.letterbox is not None:
        canvas = steps.letterbox[1], steps.letterbox[0]
        left, top = (compute_pad_offset(steps, *sides) for sides in zip(resized, canvas, strict=True))
    elif steps.height is not None:
        canvas = max(resized[0], steps.min_width), resized[1]
    if steps.crop is not None:
        crop = steps.crop[1], steps.crop[0]
        cut_left, cut_top = (compute_crop_offset(*sides) for sides in zip(canvas, crop, strict=True))
        canvas, left, top = crop, left - cut_left, top - cut_top
    return ImagePlan(size, padded, resized, canvas, left, top, build_geometry(steps, size, padded, resized, left, top))


def build_geometry(
    steps: ImagePreprocessing, size: Size, padded: Size, resized: Size, left: int, top: int
) -> ImageGeometry:
    """Build the way back; a letterbox has one scale for both sides, whatever their rounding, as detectors have it."""
    scale_x, scale_y = (target / source for source, target in zip(padded, resized, strict=True))
    if steps.letterbox is not None and not steps.pad_first:
        scale_x = scale_y = min(steps.letterbox[1] / size[0], steps.letterbox[0] / size[1])
    first_x, first_y = (compute_pad_offset(steps, *sides) for sides in zip(size, padded, strict=True))
    return ImageGeometry(*size, scale_x, scale_y, left + first_x * scale_x, top + first_y * scale_y)


def compute_padded_size(steps: ImagePreprocessing, size: Size) -> Size:
    """Compute the size of an image that is padded to the letterbox's proportions before it is resized."""
    if steps.letterbox is None or not steps.pad_first:
        return size
    (width, height), (target_height, target_width) = size, steps.letterbox
    return max(width, -(-height * target_width // target_height)), max(
        height, -(-width * target_height // target_width)
    )


def compute_resized_size(steps: ImagePreprocessing, size: Size) -> Size:
    """Compute the size after resizing, of at least one pixel a side."""
    if steps.resize is not None:
        return steps.resize[1], steps.resize[0]
    if steps.letterbox is not None and steps.pad_first:
        return steps.letterbox[1], steps.letterbox[0]
    target, source = compute_ratio(steps, size)
    width, height = (max(1, round_side(steps, side * target, source)) for side in size)
    if steps.height is not None:  # what is wider than `min_width` has no part of a pixel, as in PaddleOCR
        width = min(width, max(steps.min_width, size[0] * target // source, 1), steps.max_width or width)
    if steps.multiple > 1:
        width, height = (max(1, round(side / steps.multiple)) * steps.multiple for side in (width, height))
    return width, height


def compute_ratio(steps: ImagePreprocessing, size: Size) -> tuple[int, int]:
    """Compute the ratio that both sides are resized by, as a fraction of whole numbers, which has no rounding."""
    width, height = size
    short, long = sorted(size)
    if steps.shortest is not None:
        return steps.shortest, short
    if steps.height is not None:
        return steps.height, height
    if steps.letterbox is not None:
        target_height, target_width = steps.letterbox
        wide = target_width * height <= target_height * width
        return (target_width, width) if wide else (target_height, height)
    if steps.at_least is not None and short < steps.at_least:
        return steps.at_least, short
    if steps.at_most is not None and long > steps.at_most:
        return steps.at_most, long
    return 1, 1


def round_side(steps: ImagePreprocessing, numerator: int, denominator: int) -> int:
    """Round a side that is a fraction to whole pixels."""
    if steps.rounding == "ceiling":
        return -(-numerator // denominator)
    return numerator // denominator if steps.rounding == "floor" else (2 * numerator + denominator) // (2 * denominator)


def compute_pad_offset(steps: ImagePreprocessing, length: int, target: int) -> int:
    """Compute where an image begins along a side that is padded."""
    return (target - length) // 2 if steps.pad_position == "centre" else 0


def compute_crop_offset(length: int, target: int) -> int:
    """Compute the centre's offset along one side, with torchvision's rounding; negative if the side is too short."""
    return round((length - target) / 2) if length >= target else -((target - length) // 2)


def count_pixels(sizes: Sequence[Size]) -> int:
    """Count the pixels of images of these sizes."""
    return sum(width * height for width, height in sizes)


def widen_canvases(steps: ImagePreprocessing, canvases: Sequence[Size]) -> list[Size]:
    """Return the sizes on the canvas of a batch: lines of text are as wide as the widest of them."""
    if steps.height is None or steps.crop is not None:
        return list(canvases)
    widest = max(width for width, _ in canvases)
    return [(widest, height) for _, height in canvases]
