"""Turn scores of classes at each place into a mask of the caller's image, and the share that each class has of it.

The module knows arrays and geometries, not images; it writes the simplest PNG itself, of 8 bits of grey.
"""

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from pilotlight.contracts.processing import SegmentationPostprocessing
from pilotlight.errors import ModelRefusedError
from pilotlight.processing.activations import sigmoid, softmax
from pilotlight.processing.image_geometry import ImageGeometry, Size
from pilotlight.runtime.datatypes import Array

MAX_CLASSES = 255  # of a mask of bytes, with none
MAX_SCORES = 60_000_000  # values of an image's scores once resized, which take 1 s
STRIP_SCORES = 4_000_000  # values that are resized at once, for the memory that they take
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def build_masks(
    steps: SegmentationPostprocessing,
    labels: Sequence[str],
    scores: Array,
    geometries: Sequence[ImageGeometry],
    input_size: Size,
) -> dict[str, Array]:
    """Build the mask of each image as a PNG, its classes and their shares; without `geometries`, of the graph's size.

    `input_size` is the (width, height) of the graph's input.
    """
    maps = read_score_maps(steps, scores)
    places: Sequence[ImageGeometry | None] = geometries or [None] * len(maps)
    masks = [build_mask(steps, each, place, input_size) for each, place in zip(maps, places, strict=True)]
    files = np.empty(len(masks), object)
    files[:] = [encode_png(mask) for mask in masks]
    has_none = is_thresholded(steps, maps[0]) if len(maps) else False
    return {steps.mask: files} | measure_areas(steps, labels, masks, has_none=has_none)


def read_score_maps(steps: SegmentationPostprocessing, scores: Array) -> list[Array]:
    """Read the scores of each image as (height, width, classes), or its classes as (height, width) of integers."""
    if scores.dtype.kind in "iub":
        classes = scores[:, 0] if scores.ndim == 4 and steps.layout == "NCHW" else scores.reshape(scores.shape[:3])
        if classes.size and not 0 <= int(classes.min()) <= int(classes.max()) <= MAX_CLASSES:
            found = f"classes from {classes.min()} to {classes.max()}"
            raise ModelRefusedError(f"The graph's {steps.output!r} has {found}; a mask holds 0 to {MAX_CLASSES}.")
        return list(classes)
    scores = scores.astype(np.float32)
    if scores.ndim == 3:
        scores = scores[:, None] if steps.layout == "NCHW" else scores[..., None]
    if steps.layout == "NCHW":
        scores = scores.transpose(0, 2, 3, 1)
    if scores.shape[-1] > MAX_CLASSES:
        raise ModelRefusedError(
            f"The graph's {steps.output!r} has {scores.shape[-1]} classes, and a mask {MAX_CLASSES} at most; see "
            "'layout'."
        )
    return list(scores)


def is_thresholded(steps: SegmentationPostprocessing, scores: Array) -> bool:
    """Return whether a place may have no class: its mask's 0 is none, and 1 the first label."""
    return scores.ndim == 3 and (scores.shape[-1] == 1 or steps.activation == "sigmoid")


def build_mask(
    steps: SegmentationPostprocessing, scores: Array, geometry: ImageGeometry | None, input_size: Size
) -> Array:
    """Build the mask of one image, uint8 (height, width), in the caller's pixels."""
    if scores.ndim == 2:
        return select_pixels(scores.astype(np.uint8), geometry, input_size)
    if geometry is None:
        return classify_places(steps, scores)
    if not steps.resize_scores or geometry.width * geometry.height * scores.shape[-1] > MAX_SCORES:
        return select_pixels(classify_places(steps, scores), geometry, input_size)
    return classify_pixels(steps, scores, geometry, input_size)


def classify_pixels(
    steps: SegmentationPostprocessing, scores: Array, geometry: ImageGeometry, input_size: Size
) -> Array:
    """Choose the class of each of the caller's pixels by the scores there, in strips of rows."""
    down, across = locate_pixels(scores.shape[:2], geometry, input_size)
    mask = np.empty((geometry.height, geometry.width), np.uint8)
    height = max(1, STRIP_SCORES // (geometry.width * scores.shape[-1]))
    for start in range(0, geometry.height, height):
        strip = interpolate(interpolate(scores, down[start : start + height], 0), across, 1)
        mask[start : start + height] = classify_places(steps, strip)
    return mask


def locate_pixels(shape: Sequence[int], geometry: ImageGeometry, input_size: Size) -> tuple[Array, Array]:
    """Locate the centres of the caller's rows and columns among those of the scores, which may be a smaller map."""
    ratio_x, ratio_y = shape[1] / input_size[0], shape[0] / input_size[1]
    across = sample_places(geometry.width, geometry.scale_x * ratio_x, geometry.left * ratio_x)
    return sample_places(geometry.height, geometry.scale_y * ratio_y, geometry.top * ratio_y), across


def sample_places(length: int, scale: float, start: float) -> Array:
    """Compute where the centre of each of the caller's pixels lies among those of the scores."""
    return np.asarray((np.arange(length) + 0.5) * scale + start - 0.5)


def interpolate(values: Array, places: Array, axis: int) -> Array:
    """Interpolate linearly along a dimension; beyond the edge, the edge."""
    edge = values.shape[axis] - 1
    places = places.clip(0, edge)
    first = np.floor(places).astype(np.int64)
    shape = [1] * values.ndim
    shape[axis] = -1
    weight = (places - first).astype(np.float32).reshape(shape)
    second = np.minimum(first + 1, edge)
    return np.asarray(values.take(first, axis) * (1 - weight) + values.take(second, axis) * weight)


def select_pixels(mask: Array, geometry: ImageGeometry | None, input_size: Size) -> Array:
    """Select the nearest place of a mask for each of the caller's pixels."""
    if geometry is None:
        return mask
    down, across = (np.rint(places).astype(np.int64) for places in locate_pixels(mask.shape, geometry, input_size))
    return np.asarray(mask[down.clip(0, mask.shape[0] - 1)][:, across.clip(0, mask.shape[1] - 1)])


def classify_places(steps: SegmentationPostprocessing, scores: Array) -> Array:
    """Choose the class of each place: the best, or none below the threshold."""
    if steps.activation == "softmax" and scores.shape[-1] > 1:
        scores = softmax(scores)
    elif steps.activation == "sigmoid":
        scores = sigmoid(scores)
    best = scores.argmax(axis=-1)
    if is_thresholded(steps, scores):
        reached = np.take_along_axis(scores, best[..., None], axis=-1)[..., 0] >= steps.threshold
        best = np.where(reached, best + 1, 0)
    return np.asarray(best.astype(np.uint8))


def measure_areas(
    steps: SegmentationPostprocessing, labels: Sequence[str], masks: Sequence[Array], *, has_none: bool
) -> dict[str, Array]:
    """Measure the share of each class that is present in each mask, the largest first."""
    shares = [np.bincount(mask.ravel(), minlength=256) / max(1, mask.size) for mask in masks]
    if has_none:
        shares = [share[1:] for share in shares]
    present = [np.argsort(-share, kind="stable")[: np.count_nonzero(share)] for share in shares]
    counts = np.array([len(classes) for classes in present], np.int32)
    names = np.full((len(masks), int(counts.max(initial=0))), "", object)
    areas = np.zeros(names.shape, np.float32)
    for place, (share, classes) in enumerate(zip(shares, present, strict=True)):
        names[place, : len(classes)] = [labels[index] if index < len(labels) else str(index) for index in classes]
        areas[place, : len(classes)] = share[classes]
    return {steps.label: names, steps.area: areas, steps.count: counts}


def encode_png(mask: Array) -> bytes:
    """Encode bytes of (height, width) as a PNG of grey."""
    height, width = mask.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter, 0 for none
    rows[:, 1:] = mask
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(encode_png_chunk(kind, data) for kind, data in parts)


def encode_png_chunk(kind: bytes, data: bytes) -> bytes:
    """Encode a chunk of a PNG: its length, kind, data and check sum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
