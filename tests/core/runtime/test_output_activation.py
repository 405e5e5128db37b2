"""What an output holds is read from the graph, whatever stands between the node and the output."""

from pathlib import Path

import numpy as np
import pytest

from pilotlight.runtime.onnx_graph import read_onnx_graph
from pilotlight.runtime.output_activation import find_activation, judge_answers
from tests.fakes import MODELS
from tests.graph_writer import FLOAT, model, node, part, parts, tensor, value

ENDS = [value("x", FLOAT, ["n", 3])], [value("y", FLOAT, ["n", 3])]
ONE = tensor("one", np.array([1.0], np.float32))


def find(tmp_path: Path, *nodes: bytes, functions: tuple[bytes, ...] = ()) -> str | None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model(nodes, *ENDS, [ONE], functions=functions))
    found = find_activation(read_onnx_graph(path), "y")
    return found.activation if found else None


@pytest.mark.parametrize(
    ("operator", "domain", "activation"),
    [
        ("Softmax", "", "none"),
        ("Softmax", "ai.onnx", "none"),
        ("Sigmoid", "", "none"),
        ("Hardmax", "", "none"),
        ("HardSigmoid", "", "none"),
        ("QLinearSoftmax", "com.microsoft", "none"),
        ("LogSoftmax", "", "exp"),
        ("Relu", "", None),
        ("MatMul", "", None),
    ],
)
@pytest.mark.parametrize(
    "chain", [(), ("Identity",), ("Cast",), ("Reshape", "Squeeze", "Flatten"), ("QuantizeLinear", "DequantizeLinear")]
)
def test_the_last_node_that_computes_decides(
    tmp_path: Path, operator: str, domain: str, activation: str | None, chain: tuple[str, ...]
) -> None:
    names = [f"t{number}" for number in range(len(chain))] + ["y"]
    nodes = [node(operator, ["x"], [names[0]], domain)]
    nodes += [node(one, [names[place]], [names[place + 1]]) for place, one in enumerate(chain)]
    assert find(tmp_path, *nodes) == activation


def test_a_softmax_that_is_written_out(tmp_path: Path) -> None:
    exp, total = node("Exp", ["x"], ["e"]), node("ReduceSum", ["e"], ["s"])
    assert find(tmp_path, exp, total, node("Div", ["e", "s"], ["y"])) == "none"
    assert find(tmp_path, exp, total, node("Div", ["x", "s"], ["y"])) is None
    assert find(tmp_path, node("Softmax", ["x"], ["p"]), node("Log", ["p"], ["y"])) == "exp"
    lse = node("ReduceLogSumExp", ["x"], ["s"])
    assert find(tmp_path, lse, node("Sub", ["x", "s"], ["y"])) == "exp"
    assert find(tmp_path, node("Log", ["x"], ["y"])) is None


def test_both_sides_of_a_binary_classifier(tmp_path: Path) -> None:
    sigmoid, other = node("Sigmoid", ["x"], ["p"]), node("Sub", ["one", "p"], ["q"])
    assert find(tmp_path, sigmoid, other, node("Concat", ["q", "p"], ["y"])) == "none"
    assert find(tmp_path, sigmoid, node("Relu", ["x"], ["q"]), node("Concat", ["q", "p"], ["y"])) is None


@pytest.mark.parametrize(
    ("transform", "activation"), [("LOGISTIC", "none"), ("SOFTMAX", "none"), ("NONE", None), ("", None)]
)
@pytest.mark.parametrize("operator", ["TreeEnsembleClassifier", "LinearClassifier"])
def test_classifiers_of_machine_learning(tmp_path: Path, operator: str, transform: str, activation: str | None) -> None:
    given = {"post_transform": transform} if transform else {}
    assert find(tmp_path, node(operator, ["x"], ["label", "y"], "ai.onnx.ml", **given)) == activation


def branch(*nodes: bytes, output: str) -> bytes:
    return parts(1, nodes) + part(2, "branch") + part(12, part(1, output))


def test_both_branches_must_agree(tmp_path: Path) -> None:
    soft, loose = branch(node("Softmax", ["x"], ["a"]), output="a"), branch(node("Relu", ["x"], ["a"]), output="a")

    def choose(then: bytes, other: bytes) -> bytes:
        graphs = [part(1, name) + part(6, graph) + part(20, 5) for name, graph in
                  (("then_branch", then), ("else_branch", other))]  # fmt: skip
        return node("If", ["c"], ["y"]) + parts(5, graphs)

    assert find(tmp_path, choose(soft, soft)) == "none"
    assert find(tmp_path, choose(soft, loose)) is None
    outer = branch(output="p")
    assert find(tmp_path, node("Softmax", ["x"], ["p"]), choose(outer, outer)) == "none"


def test_functions_of_the_file_are_looked_into(tmp_path: Path) -> None:
    def function(*nodes: bytes) -> bytes:
        return part(1, "F") + part(4, "a") + part(5, "b") + parts(7, nodes) + part(10, "mine")

    soft, form = function(node("Softmax", ["a"], ["b"])), function(node("Identity", ["a"], ["b"]))
    call = node("F", ["p"], ["y"], "mine")
    assert find(tmp_path, node("Relu", ["x"], ["p"]), call, functions=(soft,)) == "none"
    assert find(tmp_path, node("Sigmoid", ["x"], ["p"]), call, functions=(form,)) == "none"
    assert find(tmp_path, node("Relu", ["x"], ["p"]), call, functions=(form,)) is None
    endless = function(node("F", ["a"], ["b"], "mine"))
    assert find(tmp_path, node("Relu", ["x"], ["p"]), call, functions=(endless,)) is None


@pytest.mark.parametrize(
    ("rows", "activation"),
    [
        ([[0.1, 0.9], [0.5, 0.5]], "none"),
        ([[0.1, 0.9], [0.5, 0.6]], None),
        ([[-0.5, 1.5]], None),
        (np.log([[0.1, 0.9], [0.5, 0.5]]).tolist(), "exp"),
        ([[-1.0, -2.0]], None),
        ([[1.0], [1.0]], None),
    ],
)
def test_answers_tell_where_nodes_do_not(rows: list[list[float]], activation: str | None) -> None:
    found = judge_answers([np.array(rows, np.float32)])
    assert (found.activation if found else None) == activation


def test_usual_graphs_are_read() -> None:
    for path in sorted(MODELS.glob("*.onnx")):
        graph = read_onnx_graph(path)
        assert graph.outputs
        assert all(name in graph.producers or name in graph.inputs for name in graph.outputs)
