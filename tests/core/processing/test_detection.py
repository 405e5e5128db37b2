"""Heads of detectors in every form become the objects of each image, in the caller's pixels."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight import processing
from pilotlight.contracts.manifest import Manifest, TensorSpec
from pilotlight.contracts.processing import DetectionPostprocessing, ImagePreprocessing
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.processing.detection import Objects, select_objects, suppress_overlaps
from pilotlight.processing.image_geometry import ImageGeometry
from pilotlight.runtime.datatypes import Array
from tests import fakes

NAMES = ("label", "score", "box", "count", "class")
PIXELS = TensorSpec("pixels", "FP32", ("batch", 3, 100, 200))
LABELS = ("cat", "dog")


def manifest(outputs: dict[str, tuple[int | str, ...]], labels: tuple[str, ...] = LABELS, **fields: Any) -> Manifest:  # noqa: ANN401 - of the finish
    specs = tuple(TensorSpec(name, "FP32", shape) for name, shape in outputs.items())
    finish = DetectionPostprocessing(**{"output": specs[0].name, **fields})
    return fakes.stepped(ImagePreprocessing(input="pixels"), finish, ((PIXELS,), specs), labels)


def detect(
    results: dict[str, Any],
    labels: tuple[str, ...] = LABELS,
    geometries: tuple[ImageGeometry, ...] = (),
    parameters: dict[str, Any] | None = None,
    **fields: Any,  # noqa: ANN401 - of the finish
) -> dict[str, Array]:
    """The caller's outputs for what the graph gives."""
    arrays = {name: np.array(values, np.float32) for name, values in results.items()}
    of = manifest({name: array.shape for name, array in arrays.items()}, labels, **fields)
    feeds = {"pixels": np.zeros((1, 3, 100, 200), np.float32)}
    found = processing.postprocess_outputs(of, arrays, feeds, NAMES, geometries, parameters)
    return {name: found[name] for name in NAMES}


BOXES = [[50, 40, 20, 10, 0.9, 0.1], [51, 40, 20, 10, 0.8, 0.3], [150, 60, 10, 10, 0.2, 0.7], [9, 9, 2, 2, 0.1, 0.1]]
EXPECTED = [[40, 35, 60, 45], [145, 55, 155, 65]]


def check(found: dict[str, Array]) -> None:
    assert found["count"].tolist() == [2]
    assert found["label"].tolist() == [["cat", "dog"]]
    np.testing.assert_allclose(found["score"], [[0.9, 0.7]], atol=1e-6)
    np.testing.assert_allclose(found["box"], [EXPECTED], atol=1e-4)
    assert found["class"].tolist() == [[0, 1]]
    assert (found["box"].dtype, found["score"].dtype, found["count"].dtype) == (np.float32, np.float32, np.int32)


def test_yolov8_either_way_round() -> None:
    head = np.array(BOXES)
    check(detect({"head": [head.T]}))
    check(detect({"head": [head]}))
    check(detect({"head": head.T[None, None]}))
    many = np.vstack([head, np.zeros((60, 6))])
    check(detect({"head": [np.hstack([many, np.full((64, 32), 9)]).T]}))  # coefficients of masks follow


def test_yolov5_multiplies_by_objectness() -> None:
    rows = [[*row[:4], 0.5, 2 * row[4], 2 * row[5]] for row in BOXES]
    check(detect({"head": [rows]}, head="yolov5"))
    check(detect({"head": [np.array(rows).T]}, head="yolov5"))


def test_rows_come_with_their_class_and_are_all_kept() -> None:
    rows = [[40, 35, 60, 45, 0.9, 0], [145, 55, 155, 65, 0.7, 1], [0, 0, 0, 0, 0, 0]]
    check(detect({"head": [rows]}, head="rows", box="xyxy"))
    doubled = detect({"head": [[rows[0], rows[0]]]}, head="rows", box="xyxy")
    assert doubled["count"].tolist() == [2]
    assert detect({"head": [[rows[0], rows[0]]]}, head="rows", box="xyxy", iou=0.5)["count"].tolist() == [1]


def test_rows_may_name_their_image() -> None:
    rows = [[0, 40, 35, 60, 45, 0, 0.9], [0, 145, 55, 155, 65, 1, 0.7], [2, 0, 0, 5, 5, 1, 0.6]]
    places = tuple(ImageGeometry(200, 100) for _ in range(3))
    found = detect({"head": rows}, head="rows", box="xyxy", geometries=places)
    assert found["count"].tolist() == [2, 0, 1]
    assert found["label"].tolist() == [["cat", "dog"], ["", ""], ["dog", ""]]


def test_outputs_of_their_own() -> None:
    boxes = np.array([[35, 40, 45, 60], [55, 145, 65, 155], [1, 1, 2, 2]]) / [100, 200, 100, 200]
    of_tensorflow = {"boxes": [boxes], "scores": [[0.9, 0.7, 0.9]], "classes": [[1, 2, 1]], "number": [2]}
    names: dict[str, Any] = {"scores_output": "scores", "classes_output": "classes", "count_output": "number"}
    check(detect(of_tensorflow, head="separate", box="yxyx", normalised=True, first_class=1, **names))
    of_torchvision = {"boxes": EXPECTED, "scores": [0.9, 0.7], "labels": [0, 1]}
    check(detect(of_torchvision, head="separate", box="xyxy", scores_output="scores", classes_output="labels"))
    logits = np.log([[0.9, 0.05, 0.05], [0.1, 0.7, 0.2], [0.1, 0.1, 0.8]])
    centres = np.array([[50, 40, 20, 10], [150, 60, 10, 10], [5, 5, 1, 1]]) / [200, 100, 200, 100]
    of_detr = {"boxes": [centres], "scores": [logits]}
    check(
        detect(of_detr, head="separate", scores_output="scores", activation="softmax", background=-1, normalised=True)
    )


def test_yolox_places_are_those_of_its_grids() -> None:
    cells = sum((200 // stride) * (100 // stride) for stride in (8, 16, 32))
    head = np.zeros((1, cells, 7))
    place = 4 * 25 + 6  # row 4, column 6 of the first grid
    head[0, place] = [0.25, 0.0, np.log(20 / 8), np.log(10 / 8), 1, 0.9, 0]
    head[0, cells - 1] = [0, 0, 0, 0, 1, 0, 0.7]  # the last cell of the last grid
    found = detect({"head": head}, head="yolov5", strides=(8, 16, 32))
    np.testing.assert_allclose(found["box"], [[[40, 27, 60, 37], [144, 48, 176, 80]]], atol=1e-4)
    with pytest.raises(ModelRefusedError, match=r"The strides \[8\] give 300 boxes, but the graph's 'head' has 390"):
        detect({"head": head}, head="yolov5", strides=(8,))


def test_boxes_are_in_the_pixels_of_the_photo_and_end_with_it() -> None:
    place = ImageGeometry(width=300, height=100, scale_x=0.5, scale_y=0.5, left=20, top=10)
    found = detect({"head": [BOXES]}, geometries=(place,))
    assert found["box"].tolist() == [[[40, 50, 80, 70], [250, 90, 270, 100]]]


def test_a_request_may_adjust_what_is_found() -> None:
    def count(**parameters: object) -> int:
        return int(detect({"head": [BOXES]}, parameters=parameters)["count"][0])

    assert [count(threshold=0.8), count(threshold=0.05), count(iou=1), count(max_detections=1)] == [1, 3, 3, 1]
    assert count(threshold=None, other=3) == 2
    with pytest.raises(
        InvalidInputError, match=r"The parameters {'threshold': 2} are not served: Expected `float` <= 1"
    ):
        count(threshold=2)
    with pytest.raises(InvalidInputError, match="Expected `float"):
        count(iou="high")
    with pytest.raises(InvalidInputError, match="Expected `int` <= 1000"):
        count(max_detections=1_000_000)


def test_nothing_found_is_an_answer_too() -> None:
    found = detect({"head": [[[1, 1, 1, 1, 0, 0], [np.nan] * 6]]})
    assert {name: found[name].shape for name in NAMES} == {
        "label": (1, 0), "score": (1, 0), "box": (1, 0, 4), "count": (1,), "class": (1, 0)
    }  # fmt: skip


def test_labels_may_be_missing() -> None:
    found = detect({"head": [[*BOXES, *[[0] * 6] * 5]]}, labels=())
    assert found["label"].tolist() == [["0", "1"]]


def test_another_class_may_overlap_unless_the_steps_say_otherwise() -> None:
    rows = [[50, 40, 20, 10, 0.9, 0.1], [50, 40, 20, 10, 0.1, 0.8]]
    assert detect({"head": [rows]})["label"].tolist() == [["cat", "dog"]]
    assert detect({"head": [rows]}, per_class=False)["label"].tolist() == [["cat"]]


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"head": "separate"}, "needs 'scores_output' for the head 'separate'"),
        ({"scores_output": "s"}, "needs 'scores_output' for the head 'separate', and for no other"),
        ({"count_output": "s"}, "which only the head 'separate' reads"),
    ],
)
def test_steps_that_do_not_fit_together_are_refused(fields: dict[str, Any], hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        DetectionPostprocessing(output="head", **fields)


def test_a_head_of_another_shape_is_a_sentence() -> None:
    with pytest.raises(ModelRefusedError, match=r"has the shape \[2, 3, 4, 5\], which is no head of 'yolov8'"):
        detect({"head": np.zeros((2, 3, 4, 5))})
    with pytest.raises(ModelRefusedError, match="has 4 numbers for each of 6 boxes, and 4 are the box's: none is"):
        detect({"head": [np.zeros((6, 4))]}, labels=())
    with pytest.raises(ModelRefusedError, match="answers 1 images for 2"):
        detect({"head": [BOXES]}, geometries=(ImageGeometry(1, 1), ImageGeometry(1, 1)))
    with pytest.raises(InvalidInputError, match=r"finishes the output 'scores', but the graph has \['boxes'\]"):
        manifest({"boxes": ("batch", 4)}, head="separate", scores_output="scores")


def test_labels_are_counted_where_the_graph_tells() -> None:
    assert manifest({"head": ("batch", 6, 8400)}).labels == LABELS
    assert manifest({"head": ("batch", 8400, 38)}).labels == LABELS  # with coefficients of masks
    assert manifest({"head": ("batch", "columns", "boxes")}).labels == LABELS
    with pytest.raises(InvalidInputError, match="has 2 labels, but the graph's 'head' takes 1"):
        manifest({"head": ("batch", 5, 8400)})


def plain_suppression(boxes: Array, classes: Array, least_overlap: float) -> list[int]:
    """Non-maximum suppression as it is written in textbooks, of boxes that come best first."""
    kept: list[int] = []
    for place, (left, top, right, bottom) in enumerate(boxes.astype(float)):
        for other in kept:
            a, b, c, d = boxes[other].astype(float)
            shared = max(0, min(right, c) - max(left, a)) * max(0, min(bottom, d) - max(top, b))
            union = (right - left) * (bottom - top) + (c - a) * (d - b) - shared
            if classes[place] == classes[other] and shared > least_overlap * union:
                break
        else:
            kept.append(place)
    return kept


@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(1, 4), st.floats(0, 0.95), st.booleans())
def test_suppression_is_the_textbooks(seed: int, count: int, classes: int, least_overlap: float, grid: bool) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(-20, 90, (count, 2))
    sides = random.uniform(0, 50, (count, 2))
    boxes = np.hstack([corners, corners + sides])
    boxes = (np.round(boxes / 8) * 8 if grid else boxes).astype(np.float32)  # many only touch, or are the same
    indices = random.integers(0, classes, count)
    found = Objects(boxes, np.linspace(1, 0.5, count, dtype=np.float32), indices)
    steps = DetectionPostprocessing(output="head", iou=least_overlap, max_detections=1000)
    assert select_objects(steps, found).scores.tolist() == [
        found.scores[place] for place in plain_suppression(boxes, indices, least_overlap)
    ]
    assert (
        suppress_overlaps(boxes, least_overlap, 3).tolist() == plain_suppression(boxes, indices * 0, least_overlap)[:3]
    )
