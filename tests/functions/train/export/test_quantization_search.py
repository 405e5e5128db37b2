"""The first rung that holds is served; each that fell is reported, with why."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from functions.train.data.split import Splits
from functions.train.evaluation.metrics import score_outputs
from functions.train.evaluation.quantization_report import build_report_table, choose_served_variant, compare_variants
from functions.train.export.candidate_search import QuantizationCandidate
from functions.train.export.onnx_export import export_onnx
from functions.train.export.quantization_search import QuantizationSearch
from functions.train.export.quantize import QuantizationPlan, list_quantizable_layers, quantize_graph, run_graph
from functions.train.models import build
from functions.train.training.trainer import seed_torch, train_model
from pilotlight.recipes.schema import QuantizationOptions
from pilotlight.runtime.session import open_session
from tests.functions.train.conftest import silence, tiny_recipe

MLP = "model={architecture: mlp, hidden: [64, 64]}"
GRU = "model={architecture: rnn, cell: gru, hidden: 32, bidirectional: true}"


def exported(override: str, splits: Splits, path: Path, spoil: Callable[[nn.Module], None] | None = None) -> Path:
    """A model that has learned for a few epochs, as a graph; `spoil` changes its weights before it is exported."""
    recipe = tiny_recipe(override, "epochs=6", "optimiser.learning_rate=0.01")
    with seed_torch(recipe.seed):
        network = build.build_model(recipe.model, splits.train)
    train_model(network, splits, recipe, lambda _: None)
    if spoil:
        spoil(network)
    export_onnx(network, splits.train, recipe.export, path)
    return path


def stretch(network: nn.Module) -> None:
    """Scale single units so far apart that one step of 8 bits for all is coarser than most of them.

    A ReLU is homogeneous: what goes into a unit a thousandfold comes out so, and the next layer takes it back.
    """
    first, second = [part for part in network.modules() if isinstance(part, nn.Linear)][:2]
    factor = torch.ones(first.out_features)
    factor[::8] = 1e3
    with torch.no_grad():
        first.weight.mul_(factor[:, None])
        first.bias.mul_(factor)
        second.weight.div_(factor)


def options(scheme: str, budget: float = 0.5) -> QuantizationOptions:
    return QuantizationOptions.model_validate({"scheme": scheme, "budget": budget})


def ladder(graph: Path, splits: Splits, chosen: QuantizationOptions) -> QuantizationSearch:
    return QuantizationSearch(graph, splits.calibration.inputs, splits.validation, chosen)


@pytest.fixture(scope="module")
def good(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(MLP, splits, tmp_path_factory.mktemp("good") / "model.fp32.onnx")


@pytest.fixture(scope="module")
def bad(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model to the last digit, but hard to quantize."""
    return exported(MLP, splits, tmp_path_factory.mktemp("bad") / "model.fp32.onnx", stretch)


def accuracy(graph: Path, splits: Splits) -> float:
    answers = run_graph(open_session(str(graph)), splits.validation.inputs)
    return score_outputs(answers, splits.validation.targets, splits.validation.classes).accuracy


def test_good_model_needs_one_rung(good: Path, splits: Splits, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    (rung,) = ladder(good, splits, options("dynamic")).search(path)
    assert rung.holds
    assert rung.plan == "dynamic, per tensor"
    assert rung.bytes == path.stat().st_size < good.stat().st_size
    assert rung.points_lost == pytest.approx(100 * (accuracy(good, splits) - accuracy(path, splits)), abs=1e-6)


def test_stretched_model_is_the_same_before_it_is_quantized(good: Path, bad: Path, splits: Splits) -> None:
    before, after = (run_graph(open_session(str(path)), splits.test.inputs) for path in (good, bad))
    assert after == pytest.approx(before, abs=1e-3)


def test_bad_model_climbs_until_its_worst_layer_is_spared(bad: Path, splits: Splits, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    rungs = ladder(bad, splits, options("dynamic")).search(path)
    assert [rung.plan for rung in rungs[:2]] == ["dynamic, per tensor", "dynamic, per channel"]
    assert [rung.holds for rung in rungs] == [False] * (len(rungs) - 1) + [True]
    assert len(rungs) >= 3
    assert all("more than the budget of 0.50" in rung.why for rung in rungs[:-1])
    spared = rungs[-1].spared
    assert spared
    assert list(spared.values()) == sorted(spared.values())  # dB, the worst first
    assert accuracy(path, splits) >= accuracy(bad, splits) - 0.005
    graph = onnx.load(path).graph
    assert {node.name for node in graph.node if node.op_type in ("Gemm", "MatMul")} & {
        name for layer in spared for name in (layer, f"{layer}_MatMul")
    }


def test_report_tells_of_every_rung(bad: Path, splits: Splits, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    rungs = ladder(bad, splits, options("dynamic")).search(path)
    found = compare_variants({"fp32": bad, "int8": path}, splits.test, splits.calibration, 100, rungs)
    assert found.rungs == rungs
    assert found.serve == "int8"
    progress = silence()
    progress.show(build_report_table(found))
    said = progress.console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert said.count("fell: ") == len(rungs) - 1
    assert said.count("held: ") == 1


class Hopeless(QuantizationSearch):
    """A ladder on which nothing but fp32 is ever right."""

    def measure_metric(self, graph: Path) -> float:
        return float(graph == self.graph)


def test_fp32_is_served_when_no_rung_holds(bad: Path, splits: Splits, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    rungs = Hopeless(bad, splits.calibration.inputs, splits.validation, options("dynamic", 50)).search(path)
    assert path.is_file()  # the one that lost least, for the report
    assert not any(rung.holds for rung in rungs)
    assert len(rungs) == 4  # per tensor, per channel, one and two of three layers spared
    serve, verdict = choose_served_variant(-1, 100, "accuracy", rungs)
    assert serve == "fp32"
    assert all(rung.plan in verdict for rung in rungs)


def test_variant_that_is_no_smaller_does_not_hold(splits: Splits, tmp_path: Path) -> None:
    small = exported("model={architecture: mlp, hidden: [2]}", splits, tmp_path / "model.fp32.onnx")
    first, *_ = ladder(small, splits, options("static", 100)).search(tmp_path / "int8.onnx")
    assert not first.holds
    assert "no fewer than" in first.why


def test_gru_keeps_its_weights_in_eight_bits(splits: Splits, tmp_path: Path) -> None:
    graph = exported(GRU, splits, tmp_path / "model.fp32.onnx")
    for per_channel in (False, True):
        path = tmp_path / "int8.onnx"
        quantize_graph(graph, splits.calibration.inputs, QuantizationPlan("dynamic", per_channel), path)
        assert path.stat().st_size < 0.5 * graph.stat().st_size
        full, small = (run_graph(open_session(str(each)), splits.test.inputs) for each in (graph, path))
        assert (full.argmax(axis=1) == small.argmax(axis=1)).mean() >= 0.99
    (layer,) = (name for name in list_quantizable_layers(graph) if "gru" in name.lower())
    quantize_graph(
        graph,
        splits.calibration.inputs,
        QuantizationPlan("dynamic", excluded_layers=(layer,)),
        tmp_path / "spared.onnx",
    )
    assert "DequantizeLinear" not in {node.op_type for node in onnx.load(tmp_path / "spared.onnx").graph.node}


def test_rungs_are_named_for_people() -> None:
    assert str(QuantizationPlan("static")) == "static, per channel"
    assert str(QuantizationPlan("dynamic", False, ("a", "b"))) == "dynamic, per tensor, a, b in fp32"
    assert QuantizationCandidate("x", 0.0, 1, True, "y").spared == {}


def test_layers_are_those_with_weights(good: Path) -> None:
    assert len(list_quantizable_layers(good)) == 3
    assert np.unique(list_quantizable_layers(good)).size == 3
