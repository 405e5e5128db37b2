"""Whatever a graph looks like, its publish ends with a variant that is served, and with what became of each try."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from functions.train.convert import evaluation_data, published_search, variants
from functions.train.convert.onnx_file import convert_onnx_file
from functions.train.convert.quantizer_process import QuantizationJob, QuantizerProcess, do_job
from functions.train.convert.variants import QuantizationSource, VariantChoice, choose_variants
from functions.train.data import Array
from functions.train.errors import QuantizationError
from functions.train.evaluation import variant_timing
from functions.train.evaluation.variant_report import VariantReport
from functions.train.export.quantize import QuantizationPlan, quantize_graph
from pilotlight.contracts.codec import decode_document
from pilotlight.errors import InvalidInputError
from pilotlight.runtime import golden_recorder
from pilotlight.runtime.session import open_session
from tests.functions.train.convert.conftest import Publish, Refused
from tests.functions.train.convert.graphs import INT64, node, save, save_convolution, save_dense, value, weights

RANDOM = np.random.default_rng(5)
ROWS = RANDOM.standard_normal((64, 256)).astype(np.float32)


class InThisProcess(QuantizerProcess):
    """Does the same jobs without a process of their own, which takes seconds to start."""

    def quantize(self, graph: Path, inputs: object, plan: QuantizationPlan, path: Path) -> None:
        result = do_job(QuantizationJob(str(graph), str(path), plan, self._write_feeds()))
        if result.failure:
            raise QuantizationError(result.failure)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantize here, and time few requests."""
    monkeypatch.setattr(variants, "QuantizerProcess", InThisProcess)
    monkeypatch.setattr(variant_timing, "ROUNDS", 5)


class Tried:
    """What was chosen for a graph, and what was said."""

    def __init__(self, choice: VariantChoice, said: list[str]) -> None:
        self.choice, self.said = choice, "\n".join(said)
        self.report = decode_document(choice.report, VariantReport, "report.json")
        open_session(str(choice.graphs[choice.serve]))


@pytest.fixture
def choose(tmp_path: Path) -> Callable[..., Tried]:
    """Choose the variants of a graph, with the arrays of an evaluation or a calibration."""

    def run(
        graph: Path,
        precision: str = "auto",
        evaluation: dict[str, Array] | None = None,
        calibration: dict[str, Array] | None = None,
        labels: tuple[str, ...] = (),
    ) -> Tried:
        said: list[str] = []
        session = open_session(str(graph))
        judged = load(evaluation, session, with_targets=True)
        ranges = load(calibration, session, with_targets=False)
        feeds = golden_recorder.generate_feeds(session)
        source = QuantizationSource(graph, feeds, labels, judged, ranges, show=said.append)
        return Tried(choose_variants(source, precision), said)

    def load(arrays: dict[str, Array] | None, session: Any, *, with_targets: bool) -> Any:  # noqa: ANN401
        if arrays is None:
            return None
        file = tmp_path / ("e.npz" if with_targets else "c.npz")
        np.savez(file, allow_pickle=False, **arrays)
        return evaluation_data.load_examples(file, session, with_targets=with_targets)

    return run


def answer(graph: Path, **feed: Array) -> Array:
    """What a graph answers first."""
    return next(iter(open_session(str(graph)).run(feed).values()))


# C3: what does not quantize, does not open or crashes


@pytest.mark.parametrize(("opset", "ir"), [(7, 3), (9, 4), (11, 6), (12, 7)])
def test_old_opsets_are_raised_for_a_scale_for_each_channel(
    choose: Callable[..., Tried], tmp_path: Path, opset: int, ir: int
) -> None:
    graph = save_convolution(tmp_path / "m.onnx", opset, ir)
    x = RANDOM.standard_normal((40, 3, 12, 12)).astype(np.float32)
    tried = choose(graph, evaluation={"x": x, "right": answer(graph, x=x).argmax(axis=1)})
    first = tried.report.rungs[0]
    assert (first.plan, first.failed) == ("static, per channel", False)
    assert first.size_ratio is not None
    assert first.size_ratio < 0.6
    assert {entry.version for entry in onnx.load(tried.choice.graphs["int8"]).opset_import if not entry.domain} == {13}


def test_a_graph_of_ir_3_whose_weights_are_no_inputs_is_quantized(publish: Publish, tmp_path: Path) -> None:
    """onnx's checker refuses it, and onnxruntime runs it: `mul_1` of its own examples is such a graph."""
    graph = onnx.load(save_dense(tmp_path / "m.onnx", ["N", 256], opset=9, ir=3))
    del graph.graph.input[1:]
    onnx.save(graph, tmp_path / "m.onnx")
    manifest = publish(tmp_path / "m.onnx", "--quantize", "int8", name="old")
    assert (manifest.serve, set(manifest.variants), manifest.golden) == ("int8", {"fp32", "int8"}, "golden.json")


def test_bytes_that_are_damaged_behind_the_header_are_told(tmp_path: Path) -> None:
    """They raised protobuf's own error."""
    graph = save_dense(tmp_path / "m.onnx", ["N", 256])
    graph.write_bytes(graph.read_bytes() + b"\x72\x02\x0a\x7f")  # a property whose key has 127 bytes of none
    with pytest.raises(InvalidInputError, match=r"m\.onnx is damaged \(.*\); download or export it again\.$"):
        convert_onnx_file(graph, tmp_path / "o.onnx")


def test_a_rung_that_cannot_be_raised_falls_and_tells(
    choose: Callable[..., Tried], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = save_convolution(tmp_path / "m.onnx", 11, 6)

    def refuse(*_: object) -> None:
        raise RuntimeError("No Adapter For Conv")

    monkeypatch.setattr("onnx.version_converter.convert_version", refuse)
    with pytest.raises(QuantizationError, match="needs opset 13, and the graph's 11 could not be raised"):
        quantize_graph(graph, ROWS[:, :1], QuantizationPlan("static"), tmp_path / "o.onnx")


class Failing(QuantizerProcess):
    """A quantizer whose every job fails, in one of the ways that jobs fail."""

    def quantize(self, graph: Path, inputs: object, plan: QuantizationPlan, path: Path) -> None:
        raise QuantizationError("the quantizer's process was ended by SIGSEGV")


def test_fp32_is_served_when_every_rung_falls(
    choose: Callable[..., Tried], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "QuantizerProcess", Failing)
    tried = choose(save_dense(tmp_path / "m.onnx", ["N", 256]), calibration={"x": ROWS})
    assert (tried.choice.serve, set(tried.choice.graphs)) == ("fp32", {"fp32"})
    assert [rung.failed for rung in tried.report.rungs] == [True] * 3
    assert tried.choice.verdict.startswith("fp32 is served: int8 cannot be made. dynamic, per tensor: the quantizer's")
    assert "fell; the quantizer's process was ended by SIGSEGV." in tried.said


def test_a_quantizer_that_ends_its_process_costs_one_rung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, target = save_dense(tmp_path / "m.onnx", ["N", 256]), tmp_path / "o.onnx"
    with QuantizerProcess(graph) as process:
        process._memory_bytes = 40_000_000
        with pytest.raises(QuantizationError, match="the quantizer's process "):
            process.quantize(graph, None, QuantizationPlan("data-free"), target)
        process._memory_bytes, process._seconds = 3_000_000_000, 0.0
        with pytest.raises(QuantizationError, match="did not end within 0 s"):
            process.quantize(graph, None, QuantizationPlan("data-free"), target)
        process._seconds = 100.0
        idle = process._start_process()
        idle.kill()  # as the kernel does for lack of memory, between two jobs
        idle.wait()
        with pytest.raises(QuantizationError, match="the quantizer's process was ended by SIGKILL"):
            process.quantize(graph, None, QuantizationPlan("data-free"), target)
        process.quantize(graph, None, QuantizationPlan("data-free"), target)
    assert target.stat().st_size < 0.3 * graph.stat().st_size


def test_no_time_is_told(choose: Callable[..., Tried], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_search, "MAX_SECONDS", -1.0)
    tried = choose(save_dense(tmp_path / "m.onnx", ["N", 256]))
    assert tried.choice.serve == "fp32"
    assert "it was not tried, since the -1 s were over" in tried.choice.verdict


@pytest.mark.parametrize(("kind", "dtype", "name"), [(10, np.float16, "FP16"), (11, np.float64, "FP64")])
def test_graphs_in_other_floats_are_served_as_they_are(
    choose: Callable[..., Tried],
    tmp_path: Path,
    kind: int,
    dtype: Any,  # noqa: ANN401 - a numpy type
    name: str,
) -> None:
    nodes, ends = [node("MatMul", "x a", "y")], [value("x", ["N", 256], kind), value("y", ["N", 10], kind)]
    graph = save(tmp_path / "m.onnx", nodes, ends[:1], ends[1:], {"a": weights(256, 10, dtype=dtype)})
    for precision in ("auto", "int8", "int4"):
        tried = choose(graph, precision)
        assert tried.choice.serve == "fp32"
        assert f"since its weights are {name}, and the quantizers read FP32." in tried.choice.verdict


@pytest.mark.parametrize(("scheme", "precision"), [("static", "int8"), ("dynamic", "int8"), ("weight-only", "int4")])
def test_a_quantized_graph_is_served_as_it_is(
    choose: Callable[..., Tried], tmp_path: Path, scheme: str, precision: str
) -> None:
    plain = save_dense(tmp_path / "plain.onnx", ["N", 256])
    for requested in ("auto", "int8"):
        graph = tmp_path / "m.onnx"
        quantize_graph(plain, ROWS, QuantizationPlan(scheme), graph)
        tried = choose(graph, requested, evaluation={"x": ROWS, "right": np.arange(64) % 10})
        assert (tried.choice.serve, set(tried.choice.graphs)) == (precision, {precision})
        assert "is served as it is: the graph is quantized already" in tried.choice.verdict
        assert set(tried.report.variants) == {precision}


def build_branches() -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """x to y over an If, whose branches read weights of the main graph."""
    branches = {
        way: helper.make_graph([node("MatMul", f"x {weight}", way)], way, [], [value(way, ["N", 64])])
        for way, weight in (("then", "a"), ("else", "b"))
    }
    nodes = [
        node("ReduceSum", "x", "sum", keepdims=0),
        node("Greater", "sum zero", "positive"),
        node("If", "positive", "h", then_branch=branches["then"], else_branch=branches["else"]),
        node("MatMul", "x a", "k"),
        node("Add", "h k", "j"),
        node("MatMul", "j g", "y"),
    ]
    zero = np.zeros((), np.float32)
    return nodes, {"a": weights(256, 64), "b": weights(256, 64), "g": weights(64, 128), "zero": zero}


def test_weights_that_a_subgraph_reads_stay(choose: Callable[..., Tried], tmp_path: Path) -> None:
    nodes, constants = build_branches()
    graph = save(tmp_path / "m.onnx", nodes, [value("x", ["N", 256])], [value("y", ["N", 128])], constants)
    tried = choose(graph, "int8", calibration={"x": ROWS})
    assert tried.choice.serve == "int8"
    assert {"a", "b"} <= {tensor.name for tensor in onnx.load(tried.choice.graphs["int8"]).graph.initializer}
    assert not any(rung.failed for rung in tried.report.rungs)


def test_functions_are_inlined(choose: Callable[..., Tried], tmp_path: Path) -> None:
    product = helper.make_node("MatMul", ["X", "W"], ["Y"])
    layer = helper.make_function("my", "Layer", ["X", "W"], ["Y"], [product], [helper.make_opsetid("", 17)])
    call = helper.make_node("Layer", ["x", "a"], ["y"], domain="my")
    ends, imports = [value("x", ["N", 256]), value("y", ["N", 64])], [helper.make_opsetid("my", 1)]
    constants = {"a": weights(256, 64)}
    graph = save(tmp_path / "m.onnx", [call], ends[:1], ends[1:], constants, functions=[layer], imports=imports)
    assert choose(graph, "int8").report.size_ratio < 0.3


def test_names_that_quantizers_give_do_not_collide(choose: Callable[..., Tried], tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x x_quantized", "x_scale", ""),
        node("Relu", "x_scale", "x_zero_point", ""),
        node("MatMul", "x_zero_point b_scale", "y_quantized", ""),
    ]
    constants = {"x_quantized": weights(256, 256), "b_scale": weights(256, 10)}
    graph = save(tmp_path / "m.onnx", nodes, [value("x", ["N", 256])], [value("y_quantized", ["N", 10])], constants)
    tried = choose(graph, "int8", calibration={"x": ROWS})
    assert not any(rung.failed for rung in tried.report.rungs)
    assert tried.report.outputs[0].name == "y_quantized"
    assert tried.report.cosine > 0.999


def test_texts_go_in_and_their_products_are_quantized(choose: Callable[..., Tried], tmp_path: Path) -> None:
    keys = ["a", "b", "c"]
    look_up = helper.make_node(
        "LabelEncoder", ["s"], ["n"], domain="ai.onnx.ml",
        keys_strings=keys, values_floats=[1.0, 2.0, 3.0], default_float=4.0,
    )  # fmt: skip
    nodes, constants = [look_up, node("MatMul", "n a", "y")], {"a": weights(64, 64)}
    ends = [value("s", ["N", 64], TensorProto.STRING), value("y", ["N", 64])]
    imports = [helper.make_opsetid("ai.onnx.ml", 2)]
    graph = save(tmp_path / "m.onnx", nodes, ends[:1], ends[1:], constants, imports=imports)
    texts = RANDOM.choice(keys, (40, 64))
    tried = choose(graph, calibration={"s": texts})
    assert not any(rung.failed for rung in tried.report.rungs)
    verdict = choose(graph).choice.verdict
    assert "over 3 examples, made up or of its origin, too few to tell: 16 are enough" in verdict, verdict


def test_a_product_that_reads_a_quantized_table_runs(choose: Callable[..., Tried], tmp_path: Path) -> None:
    """The table's and the product's scales had one name, and onnxruntime did not open the graph."""
    nodes = [node("Gather", "t ids", "rows"), node("MatMul", "rows a", "y")]
    constants = {"t": weights(64, 256), "a": weights(256, 64)}
    graph = save(tmp_path / "m.onnx", nodes, [value("ids", ["N"], INT64)], [value("y", ["N", 64])], constants)
    tried = choose(graph, "int8")
    assert [rung.failed for rung in tried.report.rungs] == [False]
    assert tried.report.cosine > 0.999


def test_weights_that_only_a_branch_reads_are_weights(choose: Callable[..., Tried], tmp_path: Path) -> None:
    """The graph was said to have none."""
    branches = {
        way: helper.make_graph([node("MatMul", f"x {way}", f"{way}_y")], way, [], [value(f"{way}_y", ["N", 64])])
        for way in ("a", "b")
    }
    nodes = [
        node("ReduceSum", "x", "sum", keepdims=0),
        node("Greater", "sum zero", "positive"),
        node("If", "positive", "y", then_branch=branches["a"], else_branch=branches["b"]),
    ]
    constants = {"a": weights(256, 64), "b": weights(256, 64, seed=1), "zero": np.zeros((), np.float32)}
    graph = save(tmp_path / "m.onnx", nodes, [value("x", ["N", 256])], [value("y", ["N", 64])], constants)
    tried = choose(graph)
    assert tried.report.rungs
    assert "has no weights" not in tried.choice.verdict


def test_answers_of_nothing_are_no_evidence(choose: Callable[..., Tried], tmp_path: Path) -> None:
    """A detector that finds nothing in noise agrees with any other that finds nothing."""
    nodes, constants = [node("MatMul", "x a", "h"), node("Mul", "h zero", "y")], {"a": weights(256, 256)}
    ends = [value("x", ["N", 256])], [value("y", ["N", 256])]
    graph = save(tmp_path / "m.onnx", nodes, *ends, constants | {"zero": np.zeros(1, np.float32)})
    for given in (None, {"x": ROWS}):
        verdict = choose(graph, calibration=given).choice.verdict
        assert verdict.startswith("fp32 is served: int8 takes ")
        assert "nothing tells what it loses, since fp32 answers nothing but zeros" in verdict


# C4 and C5: examples as the graph takes them


@pytest.mark.parametrize("shape", [[1, 256], [8, 256], [256], ["batch", 256]])
def test_examples_are_fed_as_many_at_a_time_as_the_graph_takes(
    choose: Callable[..., Tried], tmp_path: Path, shape: list[int | str]
) -> None:
    free = save_dense(tmp_path / "free.onnx", ["N", 256])
    right, rows = answer(free, x=ROWS[:43]).argmax(axis=1), ROWS[:43]
    tried = choose(save_dense(tmp_path / "m.onnx", shape), "int8", evaluation={"x": rows, "right": right})
    assert tried.report.variants["fp32"].accuracy == 1.0
    assert tried.report.evaluation is not None
    assert tried.report.evaluation.examples == 21
    assert tried.choice.test is not None


def test_a_free_dimension_that_takes_one_alone_is_found(choose: Callable[..., Tried], tmp_path: Path) -> None:
    nodes = [node("Reshape", "x one", "r"), node("MatMul", "r a", "y")]
    constants = {"one": np.array([1, 256]), "a": weights(256, 64)}
    graph = save(tmp_path / "m.onnx", nodes, [value("x", ["N", 256])], [value("y", ["N", 64])], constants)
    tried = choose(graph, evaluation={"x": ROWS, "right": np.arange(64)})
    assert "The graph takes the examples 1 at a time." in tried.said
    assert tried.report.requests == 32


def save_recurrent(path: Path, kind: str = "LSTM") -> Path:
    """x (T, N, 16) with states (1, N, 32) to y (N, 10) and the state after it."""
    hidden, gates = 32, 4 if kind == "LSTM" else 3
    states = "h0 c0" if kind == "LSTM" else "h0"
    layer = node(kind, f"x w r b seq {states}", "o h1 c1" if kind == "LSTM" else "o h1", hidden_size=hidden)
    layer.input[4] = ""
    nodes = [layer, node("Squeeze", "h1 zero", "last"), node("MatMul", "last g", "y")]
    constants = {
        "w": weights(1, gates * hidden, 16) * 4,
        "r": weights(1, gates * hidden, hidden) * 4,
        "b": weights(1, 2 * gates * hidden),
        "g": weights(hidden, 10) * 4,
        "zero": np.array([0]),
    }
    inputs = [value("x", ["T", "N", 16]), *(value(name, [1, "N", hidden]) for name in states.split())]
    outputs = [value("y", ["N", 10]), value("h1", [1, "N", hidden])]
    return save(path, nodes, inputs, outputs, constants)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_states_have_their_examples_along_the_second_axis(
    choose: Callable[..., Tried], tmp_path: Path, kind: str
) -> None:
    graph = save_recurrent(tmp_path / "m.onnx", kind)
    x, state = (RANDOM.standard_normal(shape).astype(np.float32) for shape in ((20, 40, 16), (1, 40, 32)))
    feeds = {"x": x, "h0": state} | ({"c0": state} if kind == "LSTM" else {})
    right = answer(graph, **feeds).argmax(axis=1)
    tried = choose(graph, "int8", evaluation={**feeds, "right": right})
    assert "along axis 1 of the input 'x'" in tried.said
    assert tried.report.variants["fp32"].accuracy == 1.0
    assert [one.name for one in tried.report.outputs] == ["y", "h1"]


def test_answers_with_time_first_are_judged_for_each_step(choose: Callable[..., Tried], tmp_path: Path) -> None:
    nodes = [node("MatMul", "x g", "steps"), node("Transpose", "steps", "y", perm=[1, 0, 2])]
    graph = save(
        tmp_path / "m.onnx",
        nodes,
        [value("x", ["N", 20, 64])],
        [value("y", [20, "N", 37])],
        {"g": weights(64, 37) * 4},
    )
    x = RANDOM.standard_normal((40, 20, 64)).astype(np.float32)
    right = np.moveaxis(answer(graph, x=x), 1, 0).argmax(axis=2)
    tried = choose(graph, evaluation={"x": x, "right": right})
    assert tried.report.variants["fp32"].accuracy == 1.0
    assert "along axis 1 of the output 'y'" in tried.said


def test_detection_is_compared_with_fp32_and_said_early(choose: Callable[..., Tried], tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "a", kernel_shape=[3, 3], strides=[2, 2]), node("Reshape", "a shape", "y")]
    constants = {"w": weights(22, 3, 3, 3) * 3, "shape": np.array([0, 22, -1])}
    graph = save(tmp_path / "m.onnx", nodes, [value("x", ["b", 3, 17, 17])], [value("y", ["b", 22, 64])], constants)
    x = RANDOM.standard_normal((40, 3, 17, 17)).astype(np.float32)
    tried = choose(graph, evaluation={"x": x, "boxes": RANDOM.random((40, 5, 5))})
    assert tried.said.startswith("The right answers are not used: the graph gives [22, 64] numbers for each example")
    assert (tried.report.metric, tried.report.compared) == (None, "evaluation examples")
    assert tried.report.outputs[0].places == 20 * 22
    assert "of the largest value apart, cosine" in tried.choice.verdict


def test_an_axis_may_be_told(choose: Callable[..., Tried], tmp_path: Path) -> None:
    nodes = [node("MatMul", "x a", "h"), node("MatMul", "z b", "k"), node("Add", "h k", "y")]
    inputs = [value("x", ["rows", 64]), value("z", ["p", 64])]
    graph = save(
        tmp_path / "m.onnx", nodes, inputs, [value("y", ["rows", 10])], {"a": weights(64, 10), "b": weights(64, 10)}
    )
    x, z = ROWS[:, :64], ROWS[:1, :64]
    tried = choose(
        graph, "int8", evaluation={"x": x, "z": z, "right": np.arange(64) % 10, "z.batch_axis": np.array(-1)}
    )
    assert "all with the same 'z'" in tried.said
    assert tried.choice.test is not None
    with np.load(io.BytesIO(tried.choice.test.npz)) as kept:
        assert int(kept["z.batch_axis"]) == -1


def test_answers_that_are_classes_already_must_be_equal(choose: Callable[..., Tried], tmp_path: Path) -> None:
    nodes = [node("MatMul", "x a", "h"), node("ArgMax", "h", "y", axis=1, keepdims=0)]
    graph = save(
        tmp_path / "m.onnx", nodes, [value("x", ["N", 256])], [value("y", ["N"], INT64)], {"a": weights(256, 10)}
    )
    assert choose(graph).report.outputs[0].exact
    tried = choose(graph, evaluation={"x": ROWS, "right": answer(graph, x=ROWS)})
    assert tried.report.variants["fp32"].accuracy == 1.0


# C15, and other ways to hold weights


def test_a_table_alone_is_quantized_by_row(choose: Callable[..., Tried], tmp_path: Path) -> None:
    nodes = [node("Gather", "e i", "h"), node("ReduceMean", "h", "m", axes=[1], keepdims=0), node("MatMul", "m a", "y")]
    constants = {"e": weights(1000, 64), "a": weights(64, 10)}
    graph = save(tmp_path / "m.onnx", nodes, [value("i", ["N", "T"], INT64)], [value("y", ["N", 10])], constants)
    indices = RANDOM.integers(0, 1000, (64, 7))
    assert choose(graph, evaluation={"i": indices, "right": np.arange(64) % 10}).report.size_ratio < 0.3


@pytest.mark.parametrize(
    "made", [node("MatMul", "a x", "y"), node("Gemm", "x a", "y", transA=1, alpha=0.5)], ids=["left", "transposed"]
)
def test_weights_that_quantizers_leave_alone_are_no_gain(
    choose: Callable[..., Tried], tmp_path: Path, made: onnx.NodeProto
) -> None:
    shape = (64, 256) if made.op_type == "MatMul" else (256, 64)
    outputs = [value("y", [64, "N"] if made.op_type == "MatMul" else ["N", 64])]
    graph = save(tmp_path / "m.onnx", [made], [value("x", [256, "N"])], outputs, {"a": weights(*shape)})
    tried = choose(graph, calibration={"x": ROWS.T.copy()})
    assert (tried.choice.serve, set(tried.choice.graphs)) == ("fp32", {"fp32"})
    assert "no fewer than the" in tried.choice.verdict


def test_attention_of_onnxruntime_does_not_fail(choose: Callable[..., Tried], tmp_path: Path) -> None:
    layer = helper.make_node("Attention", ["x", "w", "b"], ["y"], domain="com.microsoft", num_heads=4)
    imports, constants = [helper.make_opsetid("com.microsoft", 1)], {"w": weights(64, 192), "b": weights(192)}
    ends = [value("x", ["N", "T", 64]), value("y", ["N", "T", 64])]
    graph = save(tmp_path / "m.onnx", [layer], ends[:1], ends[1:], constants, imports=imports)
    tried = choose(graph, calibration={"x": RANDOM.standard_normal((40, 9, 64)).astype(np.float32)})
    assert len(tried.report.rungs) >= 1


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_of_any_rank_and_free_sizes(choose: Callable[..., Tried], tmp_path: Path, rank: int) -> None:
    nodes, sizes = (
        [node("Conv", "x w", "c"), node("GlobalAveragePool", "c", "y")],
        [f"s{place}" for place in range(rank)],
    )
    outputs = [value("y", ["N", 32, *[1] * rank])]
    constants = {"w": weights(32, 8, *[3] * rank) * 3}
    graph = save(tmp_path / "m.onnx", nodes, [value("x", ["N", 8, *sizes])], outputs, constants)
    tried = choose(graph, "int8", calibration={"x": RANDOM.standard_normal((40, 8, *[9] * rank)).astype(np.float32)})
    assert tried.report.rungs[0].plan == "static, per channel"
    assert not tried.report.rungs[0].failed
    assert (tried.choice.serve, tried.report.cosine > 0.99) == ("int8", True)


def test_quantized_by_name_is_obeyed_and_told(choose: Callable[..., Tried], tmp_path: Path) -> None:
    tried = choose(save_dense(tmp_path / "m.onnx", ["N", 256]), "int4")
    assert tried.choice.serve == "int4"
    assert tried.choice.verdict.startswith("int4 is served, as asked")


def test_numbers_that_only_fp32_takes_keep_fp32(choose: Callable[..., Tried], tmp_path: Path) -> None:
    nodes = [node("IsNaN", "x", "gap"), node("Where", "gap zero x", "full"), node("MatMul", "full a", "y")]
    constants = {"a": weights(256, 10), "zero": np.zeros((), np.float32)}
    graph = save(tmp_path / "m.onnx", nodes, [value("x", ["N", 256])], [value("y", ["N", 10])], constants)
    rows = ROWS.copy()
    rows[[3, 9], 0] = np.nan
    tried = choose(graph, evaluation={"x": rows, "right": np.arange(64) % 10})
    assert tried.choice.verdict == "fp32 is served: 2 of 64 examples have NaN or infinity, which only fp32 takes."


def test_a_published_graph_of_fixed_size_has_golden_requests_and_a_profile(
    publish: Publish, kept: str, tmp_path: Path
) -> None:
    graph = save_dense(tmp_path / "m.onnx", [1, 256])
    np.savez(tmp_path / "e.npz", x=ROWS[:40], right=np.arange(40) % 10)
    manifest = publish(graph, "--quantize", "auto", "--evaluation", tmp_path / "e.npz", name="fixed")
    assert {"golden.json", "evaluation.npz", "profile.json", "report.json"} <= {file.path for file in manifest.files}
    assert manifest.metric == "accuracy"


def test_large_graphs_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = save_dense(tmp_path / "m.onnx", ["N", 256])
    monkeypatch.setattr("functions.train.export.quantizable_graph.MAX_BYTES", 1000)
    with pytest.raises(QuantizationError, match="more than the 1,000 that the quantizers read"):
        quantize_graph(graph, ROWS, QuantizationPlan("dynamic"), tmp_path / "o.onnx")


def test_evaluation_is_read_before_anything_is_converted(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no graph")
    (tmp_path / "e.npz").write_text("x,y\n1,2\n")
    graph = save_dense(tmp_path / "good.onnx", ["N", 256])
    said = refused(graph, "--quantize", "auto", "--evaluation", tmp_path / "e.npz")
    assert "e.npz is not an npz of plain arrays, as numpy.savez writes it; it is text." in said


def test_old_reports_of_published_models_are_read() -> None:
    old = {
        "serve": "int8",
        "verdict": "v",
        "bytes": {"fp32": 9, "int8": 3},
        "size_ratio": 0.3,
        "cosine": 0.9,
        "variants": {},
    }
    assert decode_document(msgspec.json.encode(old), VariantReport, "report.json").bytes == {"fp32": 9, "int8": 3}
