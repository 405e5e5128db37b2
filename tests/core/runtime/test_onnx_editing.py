"""Graphs are rewritten in their bytes, and what is not edited stays."""

from pathlib import Path

import pytest

from pilotlight.runtime import classifier_graph, onnx_editing, onnx_graph, wire_format
from pilotlight.runtime.onnx_header import parse_header
from tests import fakes
from tests.graph_writer import FLOAT, model, node, value

GRAPHS = ["double", "pair", "tokens", "colours", "echo-bytes", "shared"]


def keep(content: bytes) -> bytes:
    return onnx_editing.rewrite_model(memoryview(content), lambda message, node: None, lambda name: None)


@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_not_edited_stays_byte_by_byte(name: str) -> None:
    content = fakes.graph(name)
    assert keep(content) == content or parse_header(memoryview(keep(content))) == parse_header(memoryview(content))


def test_a_node_and_an_output_are_replaced() -> None:
    content = fakes.graph("double")
    graph = onnx_graph.parse_model(memoryview(content))
    (output,) = graph.outputs
    changed = onnx_editing.rewrite_model(
        memoryview(content),
        lambda message, node: [onnx_editing.encode_cast("x", output, 1)] if output in node.outputs else None,
        lambda name: [onnx_editing.encode_tensor_output(name, 1, 3)],
    )
    again = onnx_graph.parse_model(memoryview(changed))
    assert [(node.operator, node.inputs, node.outputs) for node in again.nodes][-1] == ("Cast", ("x",), (output,))
    assert wire_format.read_nested_integer(again.output_types[output], (2, 1, 1)) == 1


def test_a_graph_of_tensors_is_published_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(fakes.graph("double"))
    servable = classifier_graph.build_servable_graph(tmp_path / "m.onnx", tmp_path / "new")
    assert (servable.path, servable.classifier, servable.notes) == (tmp_path / "m.onnx", None, ())
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Identity", ["y"], ["x"]), node("Identity", ["x"], ["y"])],
        [node("Identity", ["x"], ["y"]), node("ZipMap", [], ["x"], domain="ai.onnx.ml")],
        [node("ArrayFeatureExtractor", [], ["y"], domain="ai.onnx.ml")],
        [node("SequenceConstruct", [], ["y"])],
    ],
)
def test_a_graph_that_goes_nowhere_is_left_to_the_runtime(tmp_path: Path, nodes: list[bytes]) -> None:
    ends = [value("y", FLOAT, ["n"]), value("z", FLOAT, ["n"])]
    named = node("LinearClassifier", ["a"], ["z", "b"], domain="ai.onnx.ml")  # which makes the file one to look at
    (tmp_path / "m.onnx").write_bytes(model([named, *nodes], [value("a", FLOAT, ["n"])], ends))
    found = classifier_graph.build_servable_graph(tmp_path / "m.onnx", tmp_path / "new")
    assert found.classifier is None
