from pathlib import Path

import numpy as np
import pytest

from pilotlight.contracts.manifest import TensorSpec
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.runtime.datatypes import NUMPY_DTYPES
from pilotlight.runtime.session import MB_PER_VCPU, build_session_options, open_decoder_session, open_session
from tests.fakes import MODELS
from tests.graph_writer import model, node, tensor, value


def test_reads_its_signature_from_the_graph() -> None:
    session = open_session(str(MODELS / "pair.onnx"))
    assert session.inputs == (TensorSpec("left", "FP32", ("batch", 2)), TensorSpec("right", "FP32", ("batch", 2)))
    assert [spec.name for spec in session.outputs] == ["total", "same"]


def test_free_dimensions_without_names_are_not_the_same() -> None:
    session = open_session(str(MODELS / "outer.onnx"))
    assert [spec.shape for spec in session.inputs] == [("left.0", 1), ("right.0", 1)]
    (product,) = session.run({"left": np.ones((2, 1), np.float32), "right": np.ones((3, 1), np.float32)}).values()
    assert product.shape == (2, 3)


def test_runs_all_outputs_or_those_asked_for() -> None:
    session = open_session(str(MODELS / "pair.onnx"))
    feeds = {"left": np.array([[1, 2]], np.float32), "right": np.array([[3, 4]], np.float32)}
    assert {name: array.tolist() for name, array in session.run(feeds).items()} == {"total": [[4, 6]], "same": [[1, 2]]}
    assert list(session.run(feeds, ["same"])) == ["same"]


@pytest.mark.parametrize("datatype", [name for name in NUMPY_DTYPES if name != "BYTES"])
def test_every_datatype_passes_through(datatype: str) -> None:
    session = open_session(str(MODELS / f"echo-{datatype.lower()}.onnx"))
    array = np.array([[1, 0], [0, 1]], NUMPY_DTYPES[session.inputs[0].datatype])
    (result,) = session.run({"x": array}).values()
    assert result.dtype == array.dtype
    assert result.tolist() == array.tolist()


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x0a\x3a\x00", bytes(1000)])
def test_what_is_no_graph_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelRefusedError, match="cannot open the graph"):
        open_session(str(tmp_path / "model.onnx"))


def test_wrong_feeds_are_the_callers_fault() -> None:
    session = open_session(str(MODELS / "double.onnx"))
    with pytest.raises(InvalidInputError, match="refused the input"):
        session.run({"x": np.zeros((1, 4), np.float32)})


@pytest.mark.parametrize(("memory_mb", "threads"), [(128, 1), (MB_PER_VCPU, 1), (2 * MB_PER_VCPU, 2), (10_240, 6)])
def test_threads_follow_memory(memory_mb: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert build_session_options(memory_mb).intra_op_num_threads == threads


def test_no_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert build_session_options(10_240).intra_op_num_threads == 2


def test_what_a_graph_refuses_is_one_sentence_with_the_shapes() -> None:
    session = open_session(str(MODELS / "pair.onnx"))
    feeds = {"left": np.ones((2, 2), np.float32), "right": np.ones((3, 2), np.float32)}
    with pytest.raises(InvalidInputError) as caught:
        session.run(feeds)
    assert str(caught.value).startswith("The model refused the input: Add: ")
    assert str(caught.value).endswith("2 by 3 (sent: left [2, 2], right [3, 2]).")
    assert "onnxruntime" not in str(caught.value)


def test_one_of_two_batches_may_be_broadcast() -> None:
    session = open_session(str(MODELS / "pair.onnx"))
    feeds = {"left": np.ones((2, 2), np.float32), "right": np.ones((1, 2), np.float32)}
    assert session.run(feeds)["total"].tolist() == [[2, 2], [2, 2]]


FLOAT, STRING = 1, 8


def save(path: Path, content: bytes) -> str:
    (path / "m.onnx").write_bytes(content)
    return str(path / "m.onnx")


def test_outputs_that_are_no_tensors_are_left_out(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["y"]), node("SplitToSequence", ["x"], ["parts"])]
    ends = [value("y", FLOAT, ["n", 3]), value("parts", FLOAT, None, sequence=True)]
    session = open_session(save(tmp_path, model(nodes, [value("x", FLOAT, ["n", 3])], ends)))
    assert [spec.name for spec in session.outputs] == ["y"]
    assert session.left_out == ("parts seq(tensor(float))",)
    assert list(session.run({"x": np.ones((2, 3), np.float32)})) == ["y"]
    only = save(tmp_path, model(nodes[1:], [value("x", FLOAT, ["n", 3])], ends[1:]))
    with pytest.raises(ModelRefusedError, match=r"'parts' is a seq\(tensor\(float\)\)"):
        open_session(only)


def test_an_optional_input_takes_a_tensor(tmp_path: Path) -> None:
    given = value("x", FLOAT, ["n"], optional=True)
    content = model([node("OptionalGetElement", ["x"], ["y"])], [given], [value("y", FLOAT, ["n"])])
    session = open_session(save(tmp_path, content))
    assert session.inputs == (TensorSpec("x", "FP32", ("n",)),)
    assert session.run({"x": np.ones(2, np.float32)})["y"].tolist() == [1, 1]


def test_initializers_that_are_inputs_are_not_asked_for(tmp_path: Path) -> None:
    """Of IR 3, where each initializer had to be listed as an input."""
    inputs = [value("x", FLOAT, ["n", 3]), value("w", FLOAT, [3])]
    weights = [tensor("w", np.array([1, 2, 3], np.float32))]
    content = model([node("Add", ["x", "w"], ["y"])], inputs, [value("y", FLOAT, ["n", 3])], weights, ir=3, opset=9)
    session = open_session(save(tmp_path, content))
    assert [spec.name for spec in session.inputs] == ["x"]
    assert session.run({"x": np.zeros((1, 3), np.float32)})["y"].tolist() == [[1, 2, 3]]
    assert session.defaults == ()
    newer = model([node("Add", ["x", "w"], ["y"])], inputs, [value("y", FLOAT, ["n", 3])], weights)
    assert open_session(save(tmp_path, newer)).defaults == ("w",)


def test_a_long_path_does_not_hide_why_a_graph_does_not_open(tmp_path: Path) -> None:
    folder = tmp_path / ("deep-" * 40) / ("folder-" * 20)
    folder.mkdir(parents=True)
    file = save(folder, model([node("Relu", ["x"], ["y"])], [value("x", STRING, ["n"])], [value("y", STRING, ["n"])]))
    with pytest.raises(ModelRefusedError, match=r"cannot open the graph: .*tensor\(string\).*\(Relu\)") as caught:
        open_session(file)
    assert "deep-" not in str(caught.value)


def test_odd_names_and_negative_sizes_are_taken(tmp_path: Path) -> None:
    inputs, outputs = [value("x y/\u00e9:0", FLOAT, [-1, 3])], [value("\u00ff ;\n", FLOAT, ["a b", "?"])]
    session = open_session(save(tmp_path, model([node("Relu", ["x y/\u00e9:0"], ["\u00ff ;\n"])], inputs, outputs)))
    assert session.inputs == (TensorSpec("x y/\u00e9:0", "FP32", ("x y/\u00e9:0.0", 3)),)
    assert session.run({"x y/\u00e9:0": np.ones((2, 3), np.float32)})["\u00ff ;\n"].shape == (2, 3)


def test_a_language_model_s_threads_spin_for_a_bounded_time_and_its_weights_are_packed() -> None:
    options = open_decoder_session(MODELS / "pair.onnx", 2 * MB_PER_VCPU).get_session_options()
    entries = [
        "session.intra_op.allow_spinning",
        "session.intra_op.spin_duration_us",
        "session.prepack.enable_parallel",
    ]
    assert [options.get_session_config_entry(entry) for entry in entries] == ["1", "500", "1"]
    assert options.intra_op_num_threads == build_session_options(2 * MB_PER_VCPU).intra_op_num_threads
    with pytest.raises(RuntimeError):
        options.get_session_config_entry("session.disable_prepacking")


def test_a_language_model_that_does_not_open_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelRefusedError, match="cannot open the graph"):
        open_decoder_session(tmp_path / "model.onnx")
