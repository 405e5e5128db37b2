"""What the gate refuses, each with the reason in one sentence; what it passes becomes champion, and only that."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pilotlight.contracts import Draft, Manifest, decode
from pilotlight.errors import ChangedError
from pilotlight.gate.examination import Gate
from pilotlight.gate.promotion import Force, move, promote
from pilotlight.gate.verdict import Verdict, verdict_path
from pilotlight.registry import Registry, version_path
from pilotlight.storage import open_store
from tests import fakes

DIGITS = fakes.MODELS / "digits"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry on disk, since probes are processes, with the kept digits model as champion."""
    found = Registry(open_store((tmp_path / "store").as_uri()))
    fakes.publish_digits(found)
    return found


@pytest.fixture
def gate(registry: Registry) -> Gate:
    return Gate(registry, memory_mb=1769)


def changed(registry: Registry, change: Callable[[Path], None], tmp_path: Path, **fields: object) -> Manifest:
    """Publish digits again with its served graph changed, and without the golden requests that would tell."""
    graph = tmp_path / "model.int8.onnx"
    graph.write_bytes((DIGITS / graph.name).read_bytes())
    change(graph)
    draft = decode((DIGITS / "draft.json").read_bytes(), Draft, "draft.json")
    files = {path.name: path for path in DIGITS.iterdir() if path.name != "draft.json"} | {graph.name: graph}
    return registry.publish(msgspec.structs.replace(draft, **({"golden": None} | fields)), files)


def edited(edit: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """A change of all the float constants of a graph."""
    onnx = pytest.importorskip("onnx")

    def change(path: Path) -> None:
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims:
                values = edit(onnx.numpy_helper.to_array(tensor).copy())
                tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), tensor.name))
        onnx.save(model, path)

    return change


def renamed(path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = ["scores" if name == "logits" else name for name in node.output]
    model.graph.output[0].name = "scores"
    onnx.save(model, path)


def padded(path: Path) -> None:
    """80 MB of empty fields, which protobuf ignores."""
    path.write_bytes(path.read_bytes() + b"\x1a\x00" * 40_000_000)


def noisy(values: np.ndarray) -> np.ndarray:
    return np.asarray(values + np.random.default_rng(0).normal(0, 3 * np.abs(values).max(), values.shape))


def refusals(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.why for check in verdict.checks if not check.passed}


def test_the_same_model_again_passes_and_becomes_champion(registry: Registry, gate: Gate) -> None:
    again = fakes.publish_digits(registry)
    outcome = promote(gate, "digits", again.version, by="ann")
    assert outcome.verdict.passed
    assert outcome.moved is not None
    assert registry.alias("digits", "champion") == outcome.moved
    assert (outcome.moved.version, outcome.moved.previous, outcome.moved.reason) == (2, 1, "passed the gate")
    stored = decode(registry.store.get(verdict_path("digits", 2)).data, Verdict, "verdict")
    assert stored == outcome.verdict
    assert {check.name for check in stored.checks} == {
        "opens", "golden", "memory", "signature", "finite", "quality", "classes", "latency", "loading",
    }  # fmt: skip


def test_a_degraded_model_is_refused_and_the_champion_stays(registry: Registry, gate: Gate, tmp_path: Path) -> None:
    worse = changed(registry, edited(noisy), tmp_path)
    outcome = promote(gate, "digits", worse.version, by="ann")
    assert outcome.moved is None
    assert "points over 450 examples, worse in 100.0% of 2000 paired resamples" in refusals(outcome.verdict)["quality"]
    assert registry.alias("digits", "champion").version == 1


def test_a_model_that_answers_nan_is_refused(registry: Registry, gate: Gate, tmp_path: Path) -> None:
    broken = changed(registry, edited(lambda values: np.full_like(values, np.nan)), tmp_path)
    verdict = gate.examine("digits", broken.version, "champion", by="ann")
    assert "NaN or infinity" in refusals(verdict)["finite"]


def test_a_model_with_another_output_name_is_refused(registry: Registry, gate: Gate, tmp_path: Path) -> None:
    outputs = (msgspec.structs.replace(registry.manifest("digits", 1).outputs[0], name="scores"),)
    other = changed(registry, renamed, tmp_path, outputs=outputs)
    verdict = gate.examine("digits", other.version, "champion", by="ann")
    assert "Callers of the champion would fail: output logits FP32[-1, 10]" in refusals(verdict)["signature"]


def test_a_tampered_file_is_refused(registry: Registry, gate: Gate) -> None:
    again = fakes.publish_digits(registry)
    path = version_path("digits", again.version, again.graph.path)
    registry.store.put(path, registry.store.get(path).data[:-1] + b"x")
    verdict = gate.examine("digits", again.version, "champion", by="ann")
    assert "not the manifest's 173123 bytes" in refusals(verdict)["opens"]
    assert [check.name for check in verdict.checks] == ["opens"]


def test_a_model_that_does_not_fit_is_refused_with_the_numbers(registry: Registry, tmp_path: Path) -> None:
    again = changed(registry, padded, tmp_path)
    verdict = Gate(registry, memory_mb=128).examine("digits", again.version, "champion", by="ann")
    assert "takes 80,173,123 bytes and models may take 64,000,000" in refusals(verdict)["opens"]


def test_golden_requests_that_are_answered_otherwise_are_told(registry: Registry, gate: Gate, tmp_path: Path) -> None:
    worse = changed(registry, edited(lambda values: values * 1.5), tmp_path, golden="golden.json")
    verdict = gate.examine("digits", worse.version, "champion", by="ann")
    assert not verdict.passed
    assert "Golden request 1" in verdict.why


def test_force_moves_a_refused_version_and_says_who_and_why(registry: Registry, gate: Gate, tmp_path: Path) -> None:
    worse = changed(registry, edited(noisy), tmp_path)
    outcome = promote(gate, "digits", worse.version, by="ann", force=Force("ann", "the demo is at noon"))
    assert outcome.moved is not None
    assert not outcome.verdict.passed
    assert registry.history("digits")[-1].reason == "forced by ann: the demo is at noon"


def test_a_champion_that_was_moved_meanwhile_is_not_moved_over(registry: Registry, gate: Gate) -> None:
    for _ in range(2):
        fakes.publish_digits(registry)
    verdict = gate.examine("digits", 2, "champion", by="ann")
    registry.move("digits", "champion", 3, by="bob", reason="faster")
    with pytest.raises(ChangedError, match="was moved to version 3 while version 2 was measured against 1"):
        move(gate, verdict, "passed the gate")
    assert registry.alias("digits", "champion").version == 3


def test_a_model_without_a_test_set_is_judged_on_what_there_is(tmp_path: Path) -> None:
    registry = Registry(open_store((tmp_path / "store").as_uri()))
    fakes.publish(registry)
    fakes.publish(registry)
    verdict = Gate(registry, 1769).examine("double", 2, "champion", by="ann")
    assert verdict.passed
    assert [check.name for check in verdict.checks] == ["opens", "golden", "memory", "signature"]
