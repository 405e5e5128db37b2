"""Scores of places become masks of the caller's image, and the share of each class."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from pilotlight import processing
from pilotlight.contracts.manifest import Datatype, TensorSpec
from pilotlight.contracts.processing import EmbeddingPostprocessing, ImagePreprocessing, SegmentationPostprocessing
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.processing import segmentation
from pilotlight.processing.image_geometry import ImageGeometry, plan_image
from pilotlight.runtime.datatypes import Array
from tests import fakes

NAMES = ("mask", "label", "area", "count")
PIXELS = TensorSpec("pixels", "FP32", ("batch", 3, 8, 8))
LABELS = ("sky", "grass", "road")


def segment(
    scores: Any,  # noqa: ANN401 - nested lists
    *geometries: ImageGeometry,
    labels: tuple[str, ...] = LABELS,
    datatype: Datatype = "FP32",
    parameters: dict[str, Any] | None = None,
    **fields: Any,  # noqa: ANN401 - of the finish
) -> dict[str, Array]:
    array = np.array(scores, np.float32 if datatype == "FP32" else np.int64)
    spec = TensorSpec("y", datatype, array.shape)
    finish = SegmentationPostprocessing(output="y", **fields)
    manifest = fakes.stepped(ImagePreprocessing(input="pixels"), finish, ((PIXELS,), (spec,)), labels)
    feeds = {"pixels": np.zeros((len(array), 3, 8, 8), np.float32)}
    return dict(processing.postprocess_outputs(manifest, {"y": array}, feeds, NAMES, geometries, parameters))


def pixels(file: bytes) -> Array:
    """What any reader of PNG makes of a mask."""
    picture = Pillow.open(io.BytesIO(file))
    assert picture.mode == "L"
    return np.asarray(picture)


def one_hot(classes: Array) -> Array:
    return np.eye(3, dtype=np.float32)[classes].transpose(2, 0, 1)[None]


HALVES = np.zeros((8, 8), int)
HALVES[:, 4:] = 2


def test_the_best_class_of_each_pixel_is_the_mask() -> None:
    found = segment(one_hot(HALVES), ImageGeometry(8, 8))
    np.testing.assert_array_equal(pixels(found["mask"][0]), HALVES)
    assert found["label"].tolist() == [["sky", "road"]]
    assert found["area"].tolist() == [[0.5, 0.5]]
    assert (found["count"].tolist(), found["count"].dtype, found["area"].dtype) == ([2], np.int32, np.float32)
    last = segment(one_hot(HALVES).transpose(0, 2, 3, 1), ImageGeometry(8, 8), layout="NHWC", activation="softmax")
    np.testing.assert_array_equal(pixels(last["mask"][0]), HALVES)


def test_a_mask_has_the_size_of_the_photo_without_its_padding() -> None:
    steps = ImagePreprocessing(input="pixels", letterbox=(8, 8), pad_position="centre")
    geometry = plan_image(steps, (160, 80)).geometry  # 4 rows of 8, between 2 of padding
    scores = one_hot(np.vstack([np.full((2, 8), 1), HALVES[:4], np.full((2, 8), 1)]))
    for resize_scores in (True, False):
        mask = pixels(segment(scores, geometry, resize_scores=resize_scores)["mask"][0])
        assert mask.shape == (80, 160)
        assert (mask[12:68, :78] == 0).all()
        assert (mask[12:68, 82:] == 2).all()
    smaller = one_hot(np.vstack([np.full((1, 4), 1), HALVES[:2, ::2], np.full((1, 4), 1)]))  # half of the graph's input
    assert (pixels(segment(smaller, geometry, resize_scores=False)["mask"][0])[22:58, :78] == 0).all()


def test_one_channel_is_a_class_or_none() -> None:
    scores = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 1, 8, 8)
    found = segment(scores, ImageGeometry(8, 8), labels=("text",), threshold=0.75)
    assert (found["label"].tolist(), found["area"].tolist()) == ([["text"]], [[0.25]])
    np.testing.assert_array_equal(pixels(found["mask"][0]), (scores[0, 0] >= 0.75).astype(int))
    none = segment(scores, ImageGeometry(8, 8), labels=("text",), threshold=0.75, parameters={"threshold": 1.0})
    assert none["area"].tolist() == [[1 / 64]]
    assert segment(scores[:, 0], ImageGeometry(8, 8), labels=("text",))["count"].tolist() == [1]


def test_logits_may_be_of_several_classes_at_once() -> None:
    scores = np.where(one_hot(HALVES) > 0, 3, -3).astype(np.float32)
    scores[0, :, 0] = -5  # a row of none
    found = segment(scores, ImageGeometry(8, 8), activation="sigmoid")
    assert set(np.unique(pixels(found["mask"][0]))) == {0, 1, 3}
    assert (found["label"].tolist(), found["area"].tolist()) == ([["sky", "road"]], [[28 / 64, 28 / 64]])


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 1, 8, 8)])
def test_classes_may_come_chosen(shape: tuple[int, ...]) -> None:
    found = segment(HALVES.reshape(shape), ImageGeometry(16, 8, 0.5), datatype="INT64")
    assert pixels(found["mask"][0]).shape == (8, 16)
    assert found["label"].tolist() == [["sky", "road"]]
    with pytest.raises(ModelRefusedError, match=r"has classes from 300 to 302; a mask holds 0 to 255"):
        segment(HALVES.reshape(shape) + 300, ImageGeometry(8, 8), datatype="INT64")


def test_a_photo_of_many_pixels_is_not_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmentation, "MAX_SCORES", 1000)
    monkeypatch.setattr(segmentation, "interpolate", None)  # not called
    found = segment(one_hot(HALVES), ImageGeometry(80, 80, 0.1, 0.1))
    np.testing.assert_array_equal(pixels(found["mask"][0]), np.kron(HALVES, np.ones((10, 10), int)))


def test_strips_make_the_same_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).random((1, 3, 8, 8))
    place = ImageGeometry(37, 23, 8 / 37, 8 / 23)
    whole = segment(scores, place)["mask"][0]
    monkeypatch.setattr(segmentation, "STRIP_SCORES", 200)
    assert segment(scores, place)["mask"][0] == whole


def test_without_a_photo_the_mask_is_of_the_graphs_size() -> None:
    assert pixels(segment(one_hot(HALVES))["mask"][0]).shape == (8, 8)


def test_what_is_not_served_is_a_sentence() -> None:
    with pytest.raises(ModelRefusedError, match="has 300 classes, and a mask 255 at most; see 'layout'"):
        segment(np.zeros((1, 300, 2, 2)), labels=())
    with pytest.raises(InvalidInputError, match="'threshold': -1"):
        segment(one_hot(HALVES), parameters={"threshold": -1})


def test_labels_are_counted_where_the_graph_tells() -> None:
    with pytest.raises(InvalidInputError, match="has 2 labels, but the graph's 'y' takes 3"):
        segment(one_hot(HALVES), labels=("a", "b"))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_any_mask_is_a_png(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    np.testing.assert_array_equal(pixels(segmentation.encode_png(mask)), mask)


def test_maps_of_an_image_become_one_vector() -> None:
    array = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    finish = EmbeddingPostprocessing(output="y", normalise=False)
    of = ((PIXELS,), (TensorSpec("y", "FP32", ("batch", 2, 3, 4)),))
    manifest = fakes.stepped(ImagePreprocessing(input="pixels"), finish, of)
    found = processing.postprocess_outputs(manifest, {"y": array}, {}, ["embedding"])["embedding"]
    np.testing.assert_allclose(found, array.mean(axis=(2, 3)))
    assert processing.signature.list_signatures(manifest)[0].outputs[0].shape == ("batch", 2)
