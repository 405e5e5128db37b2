"""Turn the boxes and scores of a detector's graph into objects: labels, scores, and boxes in the caller's pixels.

Overlapping boxes are removed as by torchvision's `batched_nms`. The module knows arrays and geometries, not images.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pilotlight.contracts.processing import DetectionPostprocessing
from pilotlight.errors import ModelRefusedError
from pilotlight.processing.activations import sigmoid, softmax
from pilotlight.processing.image_geometry import ImageGeometry, Size
from pilotlight.runtime.datatypes import Array

MAX_CANDIDATES = 30_000  # of an image, the best; pairs of more would take seconds, as in ultralytics
BOX_COLUMNS = 4
NUMBERED_COLUMNS = 7  # of rows that begin with their image's number


class Objects(NamedTuple):
    """The objects of one image, best first."""

    boxes: Array  # [objects, 4], left, top, right, bottom
    scores: Array
    classes: Array  # indices of labels


def build_detections(
    steps: DetectionPostprocessing,
    labels: Sequence[str],
    results: Mapping[str, Array],
    geometries: Sequence[ImageGeometry],
    input_size: Size,
) -> dict[str, Array]:
    """Build the caller's outputs for each image; without `geometries`, boxes stay in pixels of the graph's input.

    `input_size` is the (width, height) of the graph's input.
    """
    candidates = read_candidates(steps, len(labels), results, input_size, len(geometries))
    objects = [select_objects(steps, scale_boxes(steps, found, input_size)) for found in candidates]
    if geometries:
        if len(geometries) != len(objects):
            raise ModelRefusedError(
                f"The graph answers {len(objects)} images for {len(geometries)}; see 'head' in the version's finish."
            )
        objects = [
            found._replace(boxes=geometry.restore_boxes(found.boxes))
            for found, geometry in zip(objects, geometries, strict=True)
        ]
    return pad_objects(steps, labels, objects)


def read_candidates(
    steps: DetectionPostprocessing, labels: int, results: Mapping[str, Array], input_size: Size, images: int
) -> list[Objects]:
    """Read the candidates of each image whose score reaches the threshold, in the form that the graph has."""
    head = results[steps.output].astype(np.float32)
    if steps.head == "separate":
        return read_separate_outputs(steps, head, results)
    if steps.head == "rows" and head.ndim == 2 and head.shape[1] == NUMBERED_COLUMNS:
        count = images or int(head[:, 0].max(initial=0)) + 1
        return [read_rows(steps, head[head[:, 0] == place][:, [1, 2, 3, 4, 6, 5]]) for place in range(count)]
    head = add_batch(steps, head)
    if steps.head == "rows":
        return [read_rows(steps, rows) for rows in head]
    head = orient_head(steps, labels, head)
    if steps.strides:
        head = decode_grid(steps, head, input_size)
    return [read_head(steps, labels, rows) for rows in head]


def add_batch(steps: DetectionPostprocessing, head: Array) -> Array:
    """Return a head with three dimensions: one of two is that of one image."""
    if head.ndim == 4 and 1 in head.shape[1:]:
        head = head.squeeze(1 + head.shape[1:].index(1))
    head = head[None] if head.ndim == 2 else head
    if head.ndim != 3:
        raise ModelRefusedError(
            f"The graph's {steps.output!r} has the shape {list(head.shape)}, which is no head of {steps.head!r}; see "
            "'head' in the version's finish."
        )
    return head


def read_rows(steps: DetectionPostprocessing, rows: Array) -> Objects:
    """Read the objects of one image from rows of a box, score and class."""
    classes = rows[:, 5].astype(np.int64) - steps.first_class
    return drop_low_scores(steps, rows[:, :BOX_COLUMNS], rows[:, 4], classes)


def orient_head(steps: DetectionPostprocessing, labels: int, head: Array) -> Array:
    """Return a head as [batch, boxes, columns]: by the number of labels, else the longer side is that of the boxes."""
    columns = count_box_columns(steps) + labels
    first, second = head.shape[1:]
    is_transposed = first < second if columns not in (first, second) or not labels else first == columns
    return head.swapaxes(1, 2) if is_transposed else head


def count_box_columns(steps: DetectionPostprocessing) -> int:
    """Count the columns before the scores of classes."""
    return BOX_COLUMNS + (steps.head == "yolov5")


def decode_grid(steps: DetectionPostprocessing, head: Array, input_size: Size) -> Array:
    """Decode a head that has places in the cells of its grids, as YOLOX exports it, to pixels."""
    grids, strides = [], []
    for stride in steps.strides:
        columns, rows = input_size[0] // stride, input_size[1] // stride
        across, down = np.meshgrid(np.arange(columns), np.arange(rows))
        grids.append(np.stack([across, down], axis=2).reshape(-1, 2))
        strides.append(np.full((rows * columns, 1), stride))
    cells, steps_of_cells = np.concatenate(grids).astype(np.float32), np.concatenate(strides).astype(np.float32)
    if len(cells) != head.shape[1]:
        raise ModelRefusedError(
            f"The strides {list(steps.strides)} give {len(cells):,} boxes, but the graph's {steps.output!r} has "
            f"{head.shape[1]:,}; see 'strides' in the version's finish."
        )
    places, sizes = (head[..., :2] + cells) * steps_of_cells, np.exp(head[..., 2:4]) * steps_of_cells
    return np.concatenate([places, sizes, head[..., 4:]], axis=-1)


def read_head(steps: DetectionPostprocessing, labels: int, rows: Array) -> Objects:
    """Read the candidates of one image from [boxes, columns]: the best class of each box."""
    start = count_box_columns(steps)
    scores = rows[:, start : start + labels] if labels else rows[:, start:]  # masks or points of the body may follow
    if not scores.shape[1]:
        raise ModelRefusedError(
            f"The graph's {steps.output!r} has {rows.shape[1]} numbers for each of {len(rows)} boxes, and {start} are "
            "the box's: none is a class's score; see 'head' in the version's finish."
        )
    scores = activate(steps, scores)
    if steps.head == "yolov5":
        objectness = rows[:, 4:5]
        scores = scores * (sigmoid(objectness) if steps.activation == "sigmoid" else objectness)
    return choose_classes(steps, rows[:, :BOX_COLUMNS], scores)


def read_separate_outputs(steps: DetectionPostprocessing, boxes: Array, results: Mapping[str, Array]) -> list[Objects]:
    """Read the candidates from outputs of their own; without a batch, they are those of one image."""
    arrays = [boxes, *(results[name] for name in steps.sources[1:])]
    if boxes.ndim == 2:
        arrays = [array[None] for array in arrays]
    named = dict(zip(steps.sources, arrays, strict=True))
    all_boxes = named[steps.output].reshape(len(arrays[0]), -1, BOX_COLUMNS)
    found = []
    for place, image_boxes in enumerate(all_boxes):
        scores = named[steps.scores_output][place].astype(np.float32)
        count = int(named[steps.count_output][place].ravel()[0]) if steps.count_output else len(image_boxes)
        if steps.classes_output:
            classes = named[steps.classes_output][place].ravel().astype(np.int64) - steps.first_class
            scores = activate(steps, scores.ravel())
            found.append(drop_low_scores(steps, image_boxes[:count], scores[:count], classes[:count]))
        else:
            scores = activate(steps, scores.reshape(len(image_boxes), -1))
            found.append(choose_classes(steps, image_boxes[:count], scores[:count]))
    return found


def activate(steps: DetectionPostprocessing, scores: Array) -> Array:
    """Turn scores into probabilities, as the steps say."""
    if steps.activation == "softmax":
        return softmax(scores)
    return sigmoid(scores) if steps.activation == "sigmoid" else scores


def choose_classes(steps: DetectionPostprocessing, boxes: Array, scores: Array) -> Objects:
    """Choose the best class of each box, apart from the background."""
    if steps.background is not None:
        scores = np.delete(scores, steps.background, axis=1)
    classes = scores.argmax(axis=1)
    return drop_low_scores(steps, boxes, scores[np.arange(len(scores)), classes], classes)


def drop_low_scores(steps: DetectionPostprocessing, boxes: Array, scores: Array, classes: Array) -> Objects:
    """Drop boxes below the threshold, and sort the others, best first; NaN reaches no threshold."""
    kept = np.flatnonzero((scores >= steps.threshold) & (classes >= 0))
    kept = kept[np.argsort(-scores[kept], kind="stable")[:MAX_CANDIDATES]]
    return Objects(boxes[kept].astype(np.float32), scores[kept].astype(np.float32), classes[kept])


def scale_boxes(steps: DetectionPostprocessing, found: Objects, input_size: Size) -> Objects:
    """Convert boxes to left, top, right and bottom, in pixels of the graph's input."""
    boxes = found.boxes
    if steps.box == "yxyx":
        boxes = boxes[:, [1, 0, 3, 2]]
    elif steps.box != "xyxy":
        places, sizes = boxes[:, :2], boxes[:, 2:]
        starts = places - sizes / 2 if steps.box == "xywh" else places
        boxes = np.concatenate([starts, starts + sizes], axis=1)
    if steps.normalised:
        boxes = boxes * np.array(input_size * 2, np.float32)
    return found._replace(boxes=boxes)


def select_objects(steps: DetectionPostprocessing, found: Objects) -> Objects:
    """Select the best objects: of two boxes that overlap too much, the better one."""
    boxes = found.boxes
    if steps.per_class and len(boxes):  # boxes of different classes are moved apart
        span = float(boxes.max()) - float(min(boxes.min(), 0)) + 1
        boxes = boxes + (found.classes * span)[:, None]
    kept = suppress_overlaps(boxes, steps.least_overlap, steps.max_detections)
    return Objects(found.boxes[kept], found.scores[kept], found.classes[kept])


def suppress_overlaps(boxes: Array, least_overlap: float, limit: int) -> Array:
    """Return the places of the boxes to keep, at most `limit`, of boxes that are sorted best first."""
    if least_overlap >= 1:
        return np.arange(min(len(boxes), limit))
    left, top, right, bottom = boxes.astype(np.float64).T.copy()
    areas = (right - left).clip(0) * (bottom - top).clip(0)
    kept: list[int] = []
    rest = np.arange(len(boxes))
    while len(rest) and len(kept) < limit:
        best, rest = rest[0], rest[1:]
        kept.append(int(best))
        width = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest])
        height = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        rest = rest[shared <= least_overlap * (areas[best] + areas[rest] - shared)]
    return np.array(kept, np.int64)


def pad_objects(steps: DetectionPostprocessing, labels: Sequence[str], objects: Sequence[Objects]) -> dict[str, Array]:
    """Pad the objects of all images to the longest list: with no label, a score of 0, a box of zeros and class -1."""
    counts = np.array([len(found.scores) for found in objects], np.int32)
    most = int(counts.max(initial=0))
    names = np.full((len(objects), most), "", object)
    scores = np.zeros((len(objects), most), np.float32)
    boxes = np.zeros((len(objects), most, BOX_COLUMNS), np.float32)
    classes = np.full((len(objects), most), -1, np.int64)
    for place, (found, count) in enumerate(zip(objects, counts, strict=True)):
        names[place, :count] = [labels[index] if index < len(labels) else str(index) for index in found.classes]
        scores[place, :count], boxes[place, :count], classes[place, :count] = found.scores, found.boxes, found.classes
    return {
        steps.label: names,
        steps.score: scores,
        steps.boxes: boxes,
        steps.count: counts,
        steps.class_index: classes,
    }
