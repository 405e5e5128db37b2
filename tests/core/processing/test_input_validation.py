import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight import processing
from pilotlight.contracts.manifest import Manifest, ManifestFile, TensorSpec
from pilotlight.errors import InvalidInputError
from pilotlight.registry.registry import build_manifest
from tests import fakes


def manifest(*inputs: TensorSpec) -> Manifest:
    return build_manifest(fakes.draft(inputs=inputs), (ManifestFile("model.onnx", 1, "0" * 64),))


IMAGES = manifest(TensorSpec("image", "FP32", ("batch", 1, 8, "width")))
PAIR = manifest(TensorSpec("left", "FP32", ("batch", 2)), TensorSpec("right", "FP32", ("batch", 2)))


@given(st.integers(1, 5), st.integers(0, 5))
def test_free_dimensions_take_any_size(batch: int, width: int) -> None:
    image = np.zeros((batch, 1, 8, width))
    assert processing.preprocess_inputs(IMAGES, {"image": image})["image"] is image


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((1, 8, 8), "it has 3 dimensions, not 4"),
        ((1, 1, 1, 8, 8), "it has 5 dimensions, not 4"),
        ((1, 3, 8, 8), "dimension 1 is 3, not 1"),
        ((0, 1, 8, 8), r"dimension 0 \(batch\), the batch, is empty; send at least one"),
    ],
)
def test_wrong_shapes_are_shown_beside_the_right_one(shape: tuple[int, ...], hint: str) -> None:
    with pytest.raises(InvalidInputError, match=r"expected \[batch, 1, 8, width\]: " + hint):
        processing.preprocess_inputs(IMAGES, {"image": np.zeros(shape)})


def test_free_dimensions_of_one_name_may_differ() -> None:
    """paddle2onnx calls each `?`, and one of two batches may be broadcast: the graph knows."""
    image = manifest(TensorSpec("x", "FP32", ("N", 3, "?", "?")))
    feed = np.zeros((1, 3, 1, 2), np.float32)
    assert processing.preprocess_inputs(image, {"x": feed})["x"] is feed
    feeds = {"left": np.zeros((2, 2)), "right": np.zeros((1, 2))}
    assert processing.preprocess_inputs(PAIR, feeds) == feeds


def test_an_input_may_be_empty_beside_examples() -> None:
    feeds = {"left": np.zeros((2, 2)), "right": np.zeros((0, 2))}
    assert processing.preprocess_inputs(PAIR, feeds) == feeds
    with pytest.raises(InvalidInputError, match="the batch, is empty; send at least one"):
        processing.preprocess_inputs(PAIR, {"left": np.zeros((0, 2)), "right": np.zeros((0, 2))})


def test_missing_and_extra_inputs_are_named_together() -> None:
    with pytest.raises(
        InvalidInputError, match=r"\['left', 'right'\]; 'right' is missing, 'middle' is not one of them"
    ):
        processing.preprocess_inputs(PAIR, {"left": np.zeros((2, 2)), "middle": np.zeros((2, 2))})
