"""Graphs that take all memory or time are refused with the node's name, and this process does not feel it."""

import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pilotlight.errors import InvalidInputError
from pilotlight.gate import graph_probe
from pilotlight.runtime import golden_recorder
from pilotlight.runtime.session import open_session
from tests import fakes

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto, helper, numpy_helper
else:
    onnx = pytest.importorskip("onnx")
    NodeProto, TensorProto, helper, numpy_helper = onnx.NodeProto, onnx.TensorProto, onnx.helper, onnx.numpy_helper


def constant(name: str, values: Any) -> TensorProto:  # noqa: ANN401 - what numpy takes
    return numpy_helper.from_array(np.asarray(values), name)


def build_graph(*nodes: NodeProto, constants: tuple[TensorProto, ...]) -> bytes:
    """A graph of x and of the mean of what the nodes make of constants, `huge`."""
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    ends = [
        helper.make_node("Cast", ["huge"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], keepdims=0),
        helper.make_node("Add", ["x", "mean"], ["y"]),
    ]
    graph = helper.make_graph([*nodes, *ends], "g", [infos[0]], [infos[1]], list(constants))
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    return bytes(model.SerializeToString())


def make(kind: str, inputs: list[str], **attributes: Any) -> NodeProto:  # noqa: ANN401 - of the node
    return helper.make_node(kind, inputs, ["huge"], name="the_huge_one", **attributes)


ONE, LONG = constant("one", np.ones(1, np.float32)), constant("long", np.array([10**10], np.int64))
LINE = constant("line", np.ones((1, 1000), np.float32))
HUGE = {
    "ConstantOfShape": build_graph(make("ConstantOfShape", ["long"]), constants=(LONG,)),
    "Expand": build_graph(make("Expand", ["one", "long"]), constants=(ONE, LONG)),
    "Tile": build_graph(
        make("Tile", ["line", "times"]), constants=(LINE, constant("times", np.array([10**7, 1], np.int64)))
    ),
    "Range": build_graph(
        make("Range", ["start", "end", "step"]),
        constants=tuple(constant(name, np.int64(n)) for name, n in (("start", 0), ("end", 10**10), ("step", 1))),
    ),
    "Pad": build_graph(
        make("Pad", ["one", "pads"]), constants=(ONE, constant("pads", np.array([0, 10**10], np.int64)))
    ),
}


@pytest.mark.parametrize("kind", HUGE)
def test_a_huge_constant_is_refused_with_its_node(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(HUGE[kind])
    assert path.stat().st_size < 5_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidInputError, match=f"cannot be served: .*memory.*{kind} node. Name:'the_huge_one'"):
        graph_probe.check_graph_runs(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_a_constant_that_is_declared_and_absent_is_refused(tmp_path: Path) -> None:
    absent = TensorProto(name="absent", dims=[10**10], data_type=TensorProto.FLOAT)
    path = tmp_path / "model.onnx"
    path.write_bytes(build_graph(make("Identity", ["absent"]), constants=(absent,)))
    with pytest.raises(InvalidInputError, match="cannot be served: onnxruntime"):
        graph_probe.check_graph_runs(path)


def test_a_graph_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden_recorder, "MAX_RUN_SECONDS", 0.1)
    session = open_session(str(fakes.MODELS / "endless.onnx"))
    assert graph_probe.find_run_failure(session) == "a made-up request of x [1, 3] takes longer than 0.1 s"


def test_a_usual_graph_runs() -> None:
    graph_probe.check_graph_runs(fakes.MODELS / "double.onnx")


def test_a_graph_that_refuses_made_up_requests_is_none_that_fails() -> None:
    assert graph_probe.find_run_failure(open_session(str(fakes.MODELS / "outer.onnx"))) == ""
