"""Requests are found for graphs of many kinds, from their signatures alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.contracts.manifest import Datatype, TensorSpec
from pilotlight.runtime import golden
from pilotlight.runtime.datatypes import NUMPY_DTYPES
from pilotlight.runtime.golden_recorder import record_requests
from pilotlight.runtime.request_search import Plan, build_feeds, count_values, plan_requests, search_requests
from pilotlight.runtime.session import Session, open_session
from tests.graph_writer import FLOAT, INT64, STRING, model, node, tensor, value


def opened(path: Path, nodes: Sequence[bytes], inputs: Sequence[bytes], *more: bytes, kind: int = FLOAT) -> Session:
    (path / "m.onnx").write_bytes(model(nodes, inputs, [value("y", kind, None)], more))
    return open_session(str(path / "m.onnx"))


def floats(name: str, *shape: int) -> bytes:
    return tensor(name, np.ones(shape, np.float32))


CASES = {
    "a detector that takes images of 32, 64 ...": (
        [node("Conv", ["x", "w"], ["y"], strides=[32, 32])], [value("x", FLOAT, ["n", 3, "h", "w"])],
        [floats("w", 8, 3, 32, 32)],
    ),
    "an image of unknown channels": (
        [node("Conv", ["x", "w"], ["y"])], [value("x", FLOAT, ["n", "c", "h", "w"])], [floats("w", 2, 3, 3, 3)],
    ),
    "an image with its channels last": (
        [node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), node("Conv", ["t", "w"], ["y"])],
        [value("x", FLOAT, ["n", "h", "w", "c"])], [floats("w", 2, 3, 3, 3)],
    ),
    "features of another width": (
        [node("MatMul", ["x", "w"], ["y"])], [value("x", FLOAT, ["n", "t", "f"])], [floats("w", 80, 4)],
    ),
    "a sound of many samples": (
        [node("Conv", ["x", "w"], ["y"], strides=[160])], [value("x", FLOAT, ["n", 1, "samples"])],
        [floats("w", 4, 1, 400)],
    ),
    "only one row": (
        [node("Add", ["x", "w"], ["a"]), node("Reshape", ["a", "s"], ["y"])], [value("x", FLOAT, ["n", "m"])],
        [floats("w", 1, 16), tensor("s", np.array([16], np.int64))],
    ),
    "a logarithm": ([node("Log", ["x"], ["y"])], [value("x", FLOAT, ["n", 3])], []),
    "indices of a small table": (
        [node("Gather", ["w", "ids"], ["y"])], [value("ids", INT64, ["n", "t"])], [floats("w", 2, 5)],
    ),
    "a divisor": (
        [node("Mod", ["x", "d"], ["m"]), node("Cast", ["m"], ["y"], to=FLOAT)],
        [value("x", INT64, [6]), value("d", INT64, [6])], [],
    ),
    "factors of a size": (
        [node("Resize", ["x", "", "s"], ["y"], mode="nearest")],
        [value("x", FLOAT, [1, 1, 2, 2]), value("s", FLOAT, [4])], [],
    ),
    "a shape": ([node("Expand", ["x", "s"], ["y"])], [value("x", FLOAT, [1, 3, 1]), value("s", INT64, [2])], []),
    "no inputs": ([node("Identity", ["w"], ["y"])], [], [floats("w", 2)]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_request_is_found_and_recorded(tmp_path: Path, name: str) -> None:
    nodes, inputs, more = CASES[name]
    session = opened(tmp_path, nodes, inputs, *more)
    found = search_requests(session, seconds=20)
    assert found.feeds, found.refusal
    recording = record_requests(tmp_path / "m.onnx", "fp32", found.feeds)
    assert recording.document is not None, recording.reason
    golden.replay_exchanges(recording.document, session)


def test_texts_are_made_up(tmp_path: Path) -> None:
    session = opened(tmp_path, [node("Identity", ["x"], ["y"])], [value("x", STRING, ["n"])], kind=STRING)
    assert search_requests(session).feeds


def test_a_length_is_the_size_of_the_input_beside_it(tmp_path: Path) -> None:
    nodes = [node("Shape", ["x"], ["s"]), node("Gather", ["s", "one"], ["t"]), node("Sub", ["t", "length"], ["d"]),
             node("Cast", ["d"], ["f"], to=FLOAT), node("Log", ["f"], ["l"]), node("Exp", ["l"], ["y"])]  # fmt: skip
    inputs = [value("x", FLOAT, ["n", "t"]), value("length", INT64, [1])]
    opened(tmp_path, nodes, inputs, tensor("one", np.array(1, np.int64)))
    specs = (TensorSpec("x", "FP32", ("n", "t")), TensorSpec("length", "INT64", (1,)))
    feeds = build_feeds(specs, Plan({("x", 1): 32}), 1, 0)
    assert feeds["length"].tolist() == [32]
    masked = build_feeds((*specs, TensorSpec("attention_mask", "INT64", ("n", "t"))),
                         Plan({("x", 1): 8, ("attention_mask", 1): 8}), 2, 0)  # fmt: skip
    assert masked["attention_mask"].tolist() == [[1] * 8] * 2


def test_a_large_request_is_written_in_short(tmp_path: Path) -> None:
    """A detector's 640 x 640 pixels were too many values for a document."""
    nodes = [node("GlobalAveragePool", ["x"], ["y"])]
    session = opened(tmp_path, nodes, [value("x", FLOAT, [1, 3, 640, 640])])
    recording = record_requests(tmp_path / "m.onnx", "fp32", search_requests(session).feeds)
    assert recording.document is not None
    assert recording.document.schema_version == 2
    (given,) = recording.document.exchanges[0].request.inputs
    assert len(given.data) < 1000
    assert given.expand().shape == (1, 3, 640, 640)
    assert len(given.expand().data) == 3 * 640 * 640
    golden.replay_exchanges(recording.document, session)


def test_a_graph_that_answers_nothing_ends_the_search(tmp_path: Path) -> None:
    nodes = [node("Reshape", ["x", "s"], ["y"])]
    session = opened(tmp_path, nodes, [value("x", FLOAT, ["n", 3])], tensor("s", np.array([7], np.int64)))
    found = search_requests(session, seconds=1.0)
    assert (found.feeds, found.refusal.startswith("The model refused the input: Reshape")) == ([], True)


@pytest.mark.parametrize("name", ["n", "other"])
def test_states_have_as_many_rows_as_the_input(tmp_path: Path, name: str) -> None:
    """A recurrent graph's state has the batch second, under the same name or under another."""
    nodes = [node("Transpose", ["s"], ["t"], perm=[0, 2, 1]), node("MatMul", ["t", "x"], ["y"])]
    session = opened(tmp_path, nodes, [value("x", FLOAT, ["n", "t"]), value("s", FLOAT, [2, name, 1])])
    shapes = [[feed["x"].shape[0], feed["s"].shape[1]] for feed in search_requests(session, seconds=20).feeds]
    assert shapes == [[1, 1], [2, 2]]


@pytest.mark.parametrize("dimension", ["past + steps", "past+steps"])
def test_a_mask_is_as_long_as_what_is_past_and_what_comes(tmp_path: Path, dimension: str) -> None:
    """Exporters of decoders name the mask's dimension as a sum; by chance it is hardly ever met."""
    nodes = [node("Concat", ["p", "x"], ["all"], axis=1), node("Mul", ["all", "mask"], ["y"])]
    names = {"x": "steps", "p": "past", "mask": dimension}
    session = opened(tmp_path, nodes, [value(key, FLOAT, ["n", size]) for key, size in names.items()])
    found = search_requests(session)
    assert found.tries <= 2
    assert [feed["mask"].shape for feed in found.feeds] == [(1, 16), (2, 16)]


@pytest.mark.parametrize(("name", "expected"), [("sr", 16_000), ("sample_rate", 16_000), ("sra", 1)])
def test_a_sample_rate_is_a_usual_one(name: str, expected: int) -> None:
    spec = TensorSpec(name, "INT64", ())
    assert build_feeds((spec,), Plan({}), 1, 0)[name] == expected
    assert build_feeds((spec,), Plan({}, 8000), 1, 0)[name] == 8000


SHAPES = st.lists(st.one_of(st.integers(0, 4), st.sampled_from(["n", "t", "?"])), max_size=5)


@given(st.sampled_from(sorted(NUMPY_DTYPES)), SHAPES, st.integers(0, 30))
def test_what_is_made_up_fits_the_signature(datatype: Datatype, shape: list[int | str], number: int) -> None:
    spec = TensorSpec("x", datatype, tuple(shape))
    small = (plan for plan in plan_requests((spec,), 0) if count_values((spec,), plan) <= 10_000)
    for _, plan in zip(range(number + 1), small, strict=False):
        last = plan
    values = build_feeds((spec,), last, 1, 0)["x"]
    assert values.dtype == NUMPY_DTYPES[datatype]
    assert len(values.shape) == len(shape)
    assert all(isinstance(wanted, str) or wanted == size for wanted, size in zip(shape, values.shape, strict=True))
