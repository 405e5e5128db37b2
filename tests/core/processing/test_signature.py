"""Which ways there are to call a model, and which one a request takes."""

import pytest

from pilotlight.contracts.manifest import Manifest, TensorSpec
from pilotlight.contracts.processing import (
    ClassificationPostprocessing,
    EmbeddingPostprocessing,
    ImagePreprocessing,
    RegressionPostprocessing,
    TableColumn,
    TablePreprocessing,
    TextPreprocessing,
)
from pilotlight.processing.signature import choose_signature, list_signatures
from tests import fakes

PIXELS = TensorSpec("image", "FP32", ("batch", 3, 8, 8))
LOGITS = TensorSpec("logits", "FP32", ("batch", 10))
OF = (PIXELS,), (LOGITS,)
PLAIN = fakes.stepped(None, of=OF)
CLASSIFIED = fakes.stepped(ImagePreprocessing(input="image"), ClassificationPostprocessing(output="logits"), OF)
TABULAR = fakes.stepped(
    TablePreprocessing(input="x", columns=(TableColumn(name="a"), TableColumn(name="b", categories=("u", "v"))))
)


def outputs(manifest: Manifest) -> list[tuple[str, str, list[int]]]:
    return [(spec.name, spec.datatype, spec.v2_shape) for spec in list_signatures(manifest)[0].outputs]


def test_without_steps_there_is_the_graph_alone() -> None:
    (way,) = list_signatures(PLAIN)
    assert (way.input_names, way.outputs, way.is_raw) == (["image"], (LOGITS,), True)


def test_the_same_name_is_told_by_its_datatype() -> None:
    assert not choose_signature(CLASSIFIED, {"image": "BYTES"}).is_raw
    assert choose_signature(CLASSIFIED, {"image": "FP32"}).is_raw


def test_defaults_belong_to_what_was_sent_and_all_may_be_asked_for() -> None:
    steps, raw = list_signatures(CLASSIFIED)
    assert [spec.name for spec in steps.outputs] == ["label", "probability"]
    assert [spec.name for spec in raw.outputs] == ["logits"]
    assert set(steps.output_names) == set(raw.output_names) == {"label", "probability", "probabilities", "logits"}


def test_a_table_comes_by_columns_or_at_once_or_raw() -> None:
    assert [way.input_names for way in list_signatures(TABULAR)] == [["a", "b"], ["table"], ["x"]]
    assert choose_signature(TABULAR, {"a": "INT8"}).input_names == ["a", "b"]
    assert choose_signature(TABULAR, {"table": "BYTES"}).input_names == ["table"]
    assert choose_signature(
        TABULAR, {"x": "FP64", "y": "FP32"}
    ).is_raw  # the nearest, so that its error is the useful one
    assert [given.spec.datatype for given in list_signatures(TABULAR)[0].inputs] == ["FP64", "BYTES"]


@pytest.mark.parametrize(
    ("manifest", "wanted"),
    [
        (CLASSIFIED, [("label", "BYTES", [-1]), ("probability", "FP32", [-1])]),
        (fakes.stepped(None, ClassificationPostprocessing(output="logits", top=3), OF),
         [("label", "BYTES", [-1, 3]), ("probability", "FP32", [-1, 3])]),
        (fakes.stepped(None, RegressionPostprocessing(output="logits"), OF), [("prediction", "FP32", [-1, 10])]),
        (fakes.stepped(None, RegressionPostprocessing(output="y"),
                       ((PIXELS,), (TensorSpec("y", "FP32", ("batch", 1)),))),
         [("prediction", "FP32", [-1])]),
        (fakes.stepped(TextPreprocessing(), EmbeddingPostprocessing(output="h"),
                       ((PIXELS,), (TensorSpec("h", "FP32", ("batch", "n", 384)),))),
         [("embedding", "FP32", [-1, 384])]),
    ],
)  # fmt: skip
def test_outputs_have_the_shapes_that_come(manifest: Manifest, wanted: list[tuple[str, str, list[int]]]) -> None:
    assert outputs(manifest) == wanted
