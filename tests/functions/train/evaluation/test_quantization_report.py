"""What quantization may cost, what it sees, and what becomes of a variant that costs more."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from torch import nn

from functions.train.data import Array
from functions.train.data.split import Splits
from functions.train.evaluation import variant_report
from functions.train.evaluation.metrics import score_outputs
from functions.train.evaluation.quantization_report import choose_served_variant, compare_variants
from functions.train.export.onnx_export import export_onnx
from functions.train.export.quantize import CalibrationInputs, QuantizationPlan, quantize_graph
from pilotlight.runtime.session import open_session
from tests.functions.train.conftest import Finished, tiny_recipe


@pytest.fixture(scope="module")
def int8(graph: Path, splits: Splits) -> Path:
    """The untrained model in 8 bits."""
    path = graph.with_name("model.int8.onnx")
    quantize_graph(graph, splits.calibration.inputs, QuantizationPlan("static"), path)
    return path


def calibrated_on(monkeypatch: pytest.MonkeyPatch) -> list[Array]:
    """What the calibrator is given from now on."""
    seen: list[Array] = []
    following = CalibrationInputs.get_next

    def watched(self: CalibrationInputs) -> dict[str, Array] | None:
        batch = following(self)
        seen.extend([] if batch is None else batch.values())
        return batch

    monkeypatch.setattr(CalibrationInputs, "get_next", watched)
    return seen


def test_calibrator_sees_the_calibration_images_and_no_other(
    graph: Path, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = calibrated_on(monkeypatch)
    quantize_graph(graph, splits.calibration.inputs, QuantizationPlan("static"), tmp_path / "model.onnx")
    images = {image.tobytes() for batch in seen for image in batch}
    assert images == {image.tobytes() for image in splits.calibration.inputs}
    assert not images & {image.tobytes() for part in (splits.validation, splits.test) for image in part.inputs}
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_weights_are_signed_and_leave_a_bit_free(int8: Path) -> None:
    weights = [tensor for tensor in onnx.load(int8).graph.initializer if tensor.name.endswith("weight_quantized")]
    assert weights
    for tensor in weights:
        assert tensor.data_type == onnx.TensorProto.INT8
        assert np.abs(onnx.numpy_helper.to_array(tensor).astype(int)).max() <= 64


def test_layers_are_integers_inside_and_floats_at_the_end(int8: Path) -> None:
    nodes = onnx.load(int8).graph.node
    outputs = {name: node for node in nodes for name in node.output}
    for node in nodes:
        if node.op_type in ("Conv", "Gemm"):
            assert all(outputs[name].op_type == "DequantizeLinear" for name in node.input)
    assert outputs["logits"].op_type == "Gemm"


def test_report_is_what_was_measured(graph: Path, int8: Path, splits: Splits) -> None:
    found = compare_variants({"fp32": graph, "int8": int8}, splits.test, splits.calibration, budget=100)
    for name, path in (("fp32", graph), ("int8", int8)):
        logits = open_session(str(path)).run({"image": splits.test.inputs})["logits"]
        judged, measured = score_outputs(logits, splits.test.targets, splits.test.classes), found.variants[name]  # type: ignore[index]  # a Literal
        assert (measured.accuracy, measured.per_class) == (judged.accuracy, judged.per_class)
        assert measured.bytes == path.stat().st_size
        assert measured.latency_ms > 0
    assert found.serve == "int8"
    assert found.points_lost == pytest.approx(
        100 * (found.variants["fp32"].accuracy - found.variants["int8"].accuracy), abs=1e-6
    )
    assert 0 <= found.agreement <= 1
    assert found.max_abs > 0
    assert (found.evaluation.sha256, found.evaluation.examples) == (splits.test.sha256, len(splits.test))
    assert (found.calibration.sha256, found.calibration.examples) == (splits.calibration.sha256, 32)


def test_fp32_is_served_when_int8_costs_more_than_its_budget(
    tiny: Finished, graph: Path, splits: Splits, tmp_path: Path
) -> None:
    good = tmp_path / "model.fp32.onnx"
    good.write_bytes(tiny.file("model.fp32.onnx"))
    found = compare_variants(
        {"fp32": good, "int8": graph}, splits.test, splits.calibration, budget=0.5
    )  # an untrained "int8"
    assert found.points_lost > 0.5
    assert found.serve == "fp32"
    assert found.verdict.startswith("fp32 is served: int8 loses")


@pytest.mark.parametrize(("lost", "serve"), [(-0.3, "int8"), (0.0, "int8"), (0.5, "int8"), (0.500001, "fp32")])
def test_budget_is_a_limit_that_may_be_reached(lost: float, serve: str) -> None:
    found, verdict = choose_served_variant(lost, 0.5)
    assert found == serve
    assert verdict.startswith(f"{serve} is served")
    assert "0.50" in verdict


def test_quantizing_is_repeatable(graph: Path, int8: Path, splits: Splits, tmp_path: Path) -> None:
    quantize_graph(graph, splits.calibration.inputs, QuantizationPlan("static"), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == int8.read_bytes()


def test_exporting_is_repeatable(untrained: nn.Module, graph: Path, splits: Splits, tmp_path: Path) -> None:
    export_onnx(untrained, splits.train, tiny_recipe().export, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == graph.read_bytes()


def test_machine_is_told_without_its_name() -> None:
    assert "onnxruntime" in variant_report.describe_machine()
