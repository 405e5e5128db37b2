"""Which ways there are to call a model, and which one a request takes."""

import pytest

from pilotlight.contracts.manifest import Manifest, TensorSpec
from pilotlight.contracts.processing import Classification, Column, Embedding, Image, Regression, Table, Text
from pilotlight.processing.signature import choose, signatures
from tests import fakes

PIXELS = TensorSpec("image", "FP32", ("batch", 3, 8, 8))
LOGITS = TensorSpec("logits", "FP32", ("batch", 10))
OF = (PIXELS,), (LOGITS,)
PLAIN = fakes.stepped(None, of=OF)
CLASSIFIED = fakes.stepped(Image(input="image"), Classification(output="logits"), OF)
TABULAR = fakes.stepped(Table(input="x", columns=(Column(name="a"), Column(name="b", categories=("u", "v")))))


def outputs(manifest: Manifest) -> list[tuple[str, str, list[int]]]:
    return [(spec.name, spec.datatype, spec.free_shape) for spec in signatures(manifest)[0].outputs]


def test_without_steps_there_is_the_graph_alone() -> None:
    (way,) = signatures(PLAIN)
    assert (way.names, way.outputs, way.raw) == (["image"], (LOGITS,), True)


def test_the_same_name_is_told_by_its_datatype() -> None:
    assert not choose(CLASSIFIED, {"image": "BYTES"}).raw
    assert choose(CLASSIFIED, {"image": "FP32"}).raw


def test_defaults_belong_to_what_was_sent_and_all_may_be_asked_for() -> None:
    steps, raw = signatures(CLASSIFIED)
    assert [spec.name for spec in steps.outputs] == ["label", "probability"]
    assert [spec.name for spec in raw.outputs] == ["logits"]
    assert set(steps.answers) == set(raw.answers) == {"label", "probability", "probabilities", "logits"}


def test_a_table_comes_by_columns_or_at_once_or_raw() -> None:
    assert [way.names for way in signatures(TABULAR)] == [["a", "b"], ["table"], ["x"]]
    assert choose(TABULAR, {"a": "INT8"}).names == ["a", "b"]
    assert choose(TABULAR, {"table": "BYTES"}).names == ["table"]
    assert choose(TABULAR, {"x": "FP64", "y": "FP32"}).raw  # the nearest, so that its error is the useful one
    assert [given.spec.datatype for given in signatures(TABULAR)[0].inputs] == ["FP64", "BYTES"]


@pytest.mark.parametrize(
    ("manifest", "wanted"),
    [
        (CLASSIFIED, [("label", "BYTES", [-1]), ("probability", "FP32", [-1])]),
        (fakes.stepped(None, Classification(output="logits", top=3), OF),
         [("label", "BYTES", [-1, 3]), ("probability", "FP32", [-1, 3])]),
        (fakes.stepped(None, Regression(output="logits"), OF), [("prediction", "FP32", [-1, 10])]),
        (fakes.stepped(None, Regression(output="y"), ((PIXELS,), (TensorSpec("y", "FP32", ("batch", 1)),))),
         [("prediction", "FP32", [-1])]),
        (fakes.stepped(Text(), Embedding(output="h"), ((PIXELS,), (TensorSpec("h", "FP32", ("batch", "n", 384)),))),
         [("embedding", "FP32", [-1, 384])]),
    ],
)  # fmt: skip
def test_outputs_have_the_shapes_that_come(manifest: Manifest, wanted: list[tuple[str, str, list[int]]]) -> None:
    assert outputs(manifest) == wanted
