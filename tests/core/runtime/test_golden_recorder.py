"""Golden requests of graphs that nobody has brought examples for."""

from pathlib import Path

import numpy as np
import pytest

from pilotlight.contracts.manifest import Datatype, TensorSpec
from pilotlight.errors import ModelRefusedError
from pilotlight.runtime import golden, request_search
from pilotlight.runtime.golden_recorder import Feeds, generate_feeds, generate_input, record_golden_requests
from pilotlight.runtime.session import Session, open_session
from tests import fakes


def graph(name: str) -> Session:
    return open_session(str(fakes.MODELS / f"{name}.onnx"))


def test_what_is_recorded_is_answered_again() -> None:
    path = fakes.MODELS / "double.onnx"
    found = record_golden_requests(path, "fp32", generate_feeds(graph("double")))
    assert found is not None
    assert [exchange.request.inputs[0].shape for exchange in found.exchanges] == [(1, 3), (2, 3)]
    golden.replay_exchanges(found, graph("double"))
    with pytest.raises(ModelRefusedError, match="Golden request 1"):
        golden.replay_exchanges(found, graph("square"))


@pytest.mark.parametrize("datatype", ["BOOL", "UINT8", "INT64", "FP16", "FP32", "FP64"])
def test_each_datatype_is_made_up(datatype: Datatype) -> None:
    session = graph(f"echo-{datatype.lower()}")
    found = record_golden_requests(fakes.MODELS / f"echo-{datatype.lower()}.onnx", "fp32", generate_feeds(session))
    assert found is not None
    assert found.exchanges[0].request.inputs[0].datatype == datatype


@pytest.mark.parametrize("name", ["pair", "outer", "tokens", "colours"])
def test_free_dimensions_are_given_sizes(name: str) -> None:
    assert len(generate_feeds(graph(name))) == 2


def test_texts_are_made_up_as_well() -> None:
    feeds = generate_feeds(graph("echo-bytes"))
    assert record_golden_requests(fakes.MODELS / "echo-bytes.onnx", "fp32", feeds) is not None
    assert record_golden_requests(fakes.MODELS / "echo-bytes.onnx", "fp32", ()) is None


def test_given_texts_are_recorded() -> None:
    feed: Feeds = {"x": np.array([["a", "b"]], object)}
    found = record_golden_requests(fakes.MODELS / "echo-bytes.onnx", "fp32", [feed])
    assert found is not None
    golden.replay_exchanges(found, graph("echo-bytes"))


def test_what_is_no_number_is_not_recorded() -> None:
    feed: Feeds = {"x": np.array([[-1.0, 0.0, 1.0]], np.float32)}
    assert record_golden_requests(fakes.MODELS / "logarithm.onnx", "fp32", [feed]) is None


def test_what_does_not_end_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_search, "SEARCH_SECONDS", 0.1)
    result = request_search.search_requests(graph("endless"), seconds=0.1)
    assert (result.feeds, result.tries) == ([], 1)
    assert "still computing" in result.refusal


def test_whole_numbers_are_indices_of_any_table() -> None:
    spec = TensorSpec("ids", "INT64", ("batch", "tokens"))
    assert set(generate_input(spec, 2, np.random.default_rng(0)).ravel().tolist()) <= {0, 1}


def test_a_graph_that_draws_by_chance_has_no_golden_requests(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(name, kind, ["batch", 3]) for name in "xy"]
    node = helper.make_node("RandomNormalLike", ["x"], ["y"])
    model = helper.make_model(
        helper.make_graph([node], "g", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    path = tmp_path / "chance.onnx"
    onnx.save(model, path)
    assert record_golden_requests(path, "fp32", generate_feeds(open_session(str(path)))) is None
