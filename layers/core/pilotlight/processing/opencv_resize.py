"""Resize images as OpenCV does, in numpy: models are trained, and their packages run, on what `cv2.resize` computes.

OpenCV's INTER_LINEAR has no antialiasing, unlike Pillow's bilinear filter, so that the pixels of a photograph that is
made much smaller differ by tens. Bytes are computed with its fixed-point arithmetic, to the last bit. Source: opencv,
modules/imgproc/src/resize.cpp. The module knows arrays, not files.
"""

from typing import NamedTuple

import numpy as np

from pilotlight.runtime.datatypes import Array

COEFFICIENT_BITS = 11  # of a weight in fixed point
ONE = 1 << COEFFICIENT_BITS


class Taps(NamedTuple):
    """The two source pixels of each target pixel along one side, and how far it lies between them."""

    first: Array
    second: Array
    fraction: Array  # float32, of the second


def resize_linear(pixels: Array, height: int, width: int) -> Array:
    """Resize (height, width, channels) as INTER_LINEAR does: bytes in fixed point, floats in float32."""
    if pixels.shape[:2] == (height, width):
        return pixels
    if pixels.dtype == np.uint8 and pixels.shape[:2] == (2 * height, 2 * width):
        return average_blocks(pixels, 2, 2)  # as OpenCV does at exactly half the size
    rows, columns = find_taps(pixels.shape[0], height), find_taps(pixels.shape[1], width)
    columns = columns._replace(fraction=np.where(columns.first == columns.second, 0, columns.fraction))
    return resize_by_taps(pixels, rows, columns)


def resize_by_taps(pixels: Array, rows: Taps, columns: Taps) -> Array:
    """Resize by the taps of both sides, rows after columns."""
    if pixels.dtype == np.uint8:
        return resize_bytes(pixels, rows, columns)
    weights = columns.fraction[:, None]
    narrow = pixels[:, columns.first] * (1 - weights) + pixels[:, columns.second] * weights
    heights = rows.fraction[:, None, None]
    return np.asarray(narrow[rows.first] * (1 - heights) + narrow[rows.second] * heights)


def find_taps(source: int, target: int) -> Taps:
    """Find the source pixels for each pixel of a side, by the centres of pixels; beyond the edge, the edge."""
    places = ((np.arange(target) + 0.5) * (1 / (target / source)) - 0.5).astype(np.float32)
    first = np.floor(places).astype(np.int64)
    edge = source - 1
    return Taps(first.clip(0, edge), (first + 1).clip(0, edge), (places - first).astype(np.float32))


def find_area_taps(source: int, target: int) -> Taps:
    """Find the source pixels for each pixel of an enlarged side, as INTER_AREA does: linear at the edges of areas."""
    target_places = np.arange(target)
    first = np.floor(target_places * (1 / (target / source))).astype(np.int64)
    fraction = (target_places + 1 - (first + 1) * (target / source)).astype(np.float32)
    fraction = np.where(fraction <= 0, 0, fraction - np.floor(fraction)).astype(np.float32)
    edge = source - 1
    return Taps(first.clip(0, edge), (first + 1).clip(0, edge), fraction)


def resize_bytes(pixels: Array, rows: Taps, columns: Taps) -> Array:
    """Resize bytes in fixed point: weights of 11 bits, sums of 32, and the vertical step's own rounding."""
    right, left = to_fixed_point(columns.fraction)
    used = np.unique(np.concatenate([rows.first, rows.second]))  # rows that a smaller image needs
    source = pixels[used].astype(np.int32)
    narrow = source[:, columns.first] * left[:, None] + source[:, columns.second] * right[:, None]
    narrow >>= 4
    below, above = (part[:, None, None] for part in to_fixed_point(rows.fraction))
    upper = (narrow[np.searchsorted(used, rows.first)] * above) >> 16
    lower = (narrow[np.searchsorted(used, rows.second)] * below) >> 16
    return np.asarray(((upper + lower + 2) >> 2).clip(0, 255).astype(np.uint8))


def to_fixed_point(fraction: Array) -> tuple[Array, Array]:
    """Convert weights to fixed point: of the second pixel, and of the first."""
    second = np.rint(fraction * np.float32(ONE)).astype(np.int32)
    first = np.rint((np.float32(1) - fraction) * np.float32(ONE)).astype(np.int32)
    return second, first


def average_blocks(pixels: Array, rows: int, columns: int) -> Array:
    """Average blocks of so many rows and columns; of two by two, halves are rounded up."""
    height, width, channels = pixels.shape
    blocks = pixels.reshape(height // rows, rows, width // columns, columns, channels)
    total = blocks.sum(axis=(1, 3), dtype=np.int32)
    if rows == columns == 2:
        return np.asarray(((total + 2) >> 2).astype(np.uint8))
    return np.asarray(np.rint(total.astype(np.float32) * np.float32(1 / (rows * columns))).astype(np.uint8))


def resize_area(pixels: Array, height: int, width: int) -> Array:
    """Resize bytes, (height, width, channels), as INTER_AREA does: each pixel is the mean of its area."""
    rows, columns = pixels.shape[:2]
    if height > rows or width > columns:
        return resize_by_taps(pixels, find_area_taps(rows, height), find_area_taps(columns, width))
    if rows % height == 0 and columns % width == 0:
        return average_blocks(pixels, rows // height, columns // width)
    narrow = average_areas(pixels.swapaxes(0, 1), width).swapaxes(0, 1)
    return np.asarray(np.rint(average_areas(narrow, height)).clip(0, 255).astype(np.uint8))


def average_areas(values: Array, target: int) -> Array:
    """Average the first dimension to `target` areas of equal length, float32; pixels at their edges count in part."""
    source = len(values)
    length = source / target
    edges = np.arange(target + 1) * length
    start, end = np.ceil(edges[:-1] - 1e-9).astype(np.int64), np.floor(edges[1:] + 1e-9).astype(np.int64)
    places = np.stack([start, np.maximum(end, start)], axis=1).ravel()
    if places[-1] == source:
        places = places[:-1]  # the last area goes on to the end
    whole = np.add.reduceat(values, places, axis=0, dtype=np.float32)[::2]
    shape = (target, *(1 for _ in values.shape[1:]))
    whole = whole * (end > start).reshape(shape)  # of an empty area, reduceat returns its first pixel
    before = (start - edges[:-1]).clip(0).astype(np.float32).reshape(shape)
    after = (edges[1:] - end).clip(0).astype(np.float32).reshape(shape)
    whole += values[(start - 1).clip(0)] * before
    whole += values[end.clip(0, source - 1)] * after
    return np.asarray(whole * np.float32(1 / length))
