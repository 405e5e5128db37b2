"""What `pilotlight fit` foretells, against what a process really takes."""

import json
from math import ceil

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from pilotlight.contracts.manifest import Manifest, ManifestDraft, TensorSpec, Variant
from pilotlight.registry.registry import Registry
from pilotlight.runtime.model_benchmark import LoadMeasurement, measure_load
from pilotlight.runtime.sizing import build_sizing_report, choose_memory_mb
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.core.cli.conftest import Run

MB = 1_000_000


def publish_layers(registry: Registry, layers: int, width: int) -> Manifest:
    """A stack of square matrices of random numbers."""
    numbers = np.random.default_rng(0)
    weights = [numbers.standard_normal((width, width)).astype(np.float32) / width for _ in range(layers)]
    names = ["x", *(f"h{layer}" for layer in range(layers - 1)), "y"]
    nodes = [helper.make_node("MatMul", [names[at], f"w{at}"], [names[at + 1]]) for at in range(layers)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name in "xy"]
    stored = [numpy_helper.from_array(weight, f"w{at}") for at, weight in enumerate(weights)]
    graph = helper.make_graph(nodes, "layers", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    specs = tuple(TensorSpec(name, "FP32", ("batch", width)) for name in "xy")
    draft = ManifestDraft(
        name="layers", inputs=specs[:1], outputs=specs[1:], variants={"fp32": Variant("model.onnx")}, serve="fp32"
    )
    return registry.publish_version(draft, {"model.onnx": model.SerializeToString()})


@pytest.mark.parametrize(("layers", "width"), [(1, 8), (16, 1000), (4, 2000)])
def test_memory_is_foretold_within_15_percent(store: str, layers: int, width: int) -> None:
    manifest = publish_layers(Registry(open_store(store)), layers, width)
    found, foretold = measure_load(store, manifest, 1769), build_sizing_report(manifest)
    assert foretold.peak_bytes == pytest.approx(found.peak_bytes, rel=0.15)
    assert found.load_seconds > 0
    assert found.warm_ms > 0


def test_fit_speaks_to_people_and_to_scripts(run: Run, store: str) -> None:
    fakes.publish_digits(Registry(open_store(store)))
    code, out, _ = run("fit", "digits")
    assert code == 0
    assert "digits:1" in out
    assert "512 MB" in out
    code, out, _ = run("fit", "digits:1", "--measure", "--json")
    said = json.loads(out)
    assert (code, said["source"], said["memory_mb"], said["model"]) == (0, "measured", 512, "digits")
    # each begun ms of 512 MB, a Lambda request, a REST API request
    expected = 1e6 * (0.5 * 0.001 * ceil(said["warm_ms"]) * 0.0000166667 + 2e-7 + 3.5e-6)
    assert said["usd_per_million"] == pytest.approx(expected, abs=0.01)


def test_arm_is_cheaper(run: Run, store: str) -> None:
    publish_layers(Registry(open_store(store)), 4, 1500)
    dear, cheap = (json.loads(run("fit", "layers", "--json", *more)[1]) for more in ((), ("--arm",)))
    assert cheap["usd_per_million"] < dear["usd_per_million"]


@pytest.mark.parametrize("size", [MB, 100 * MB, 300 * MB, 2000 * MB])
def test_the_memory_size_holds_the_peak_and_the_model(size: int) -> None:
    memory_mb = choose_memory_mb(72 * MB + 2 * size, size)
    assert memory_mb is not None
    assert memory_mb % 64 == 0
    assert memory_mb * 1024 * 1024 > 72 * MB + 2 * size
    assert memory_mb * MB // 2 >= size


def test_what_no_function_holds_is_said() -> None:
    manifest = fakes.publish(Registry(open_store("memory://")))
    found = build_sizing_report(manifest, LoadMeasurement(20_000 * MB, 60.0, 5.0))
    assert (found.memory_mb, found.usd_per_million) == (None, None)
    assert found.warnings == ("No function is large enough: Lambda ends at 10,240 MB.",)


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["nothing"], 1, "There is no model 'nothing'"),
        (["digits:"], 2, "write name, name:3 or name@alias"),
        (["broken", "--measure"], 2, "broken:1 cannot be measured: onnxruntime"),
    ],
)
def test_what_cannot_be_fitted(run: Run, store: str, words: list[str], code: int, hint: str) -> None:
    Registry(open_store(store)).publish_version(fakes.draft("broken"), {"model.onnx": b"no graph"})
    found, out, err = run("fit", *words)
    assert (found, out, hint in err) == (code, "", True), err
