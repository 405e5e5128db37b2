"""What the gate refuses, each with the reason in one sentence; what it passes becomes champion, and only that."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import ManifestDraft
from pilotlight.errors import ChangedError
from pilotlight.gate import evaluation
from pilotlight.gate.answers import reduce_answers
from pilotlight.gate.evaluation import QualityGate
from pilotlight.gate.probe import ProbeRequest
from pilotlight.gate.probe_result import ProbeResult
from pilotlight.gate.promotion import GateOverride, move_alias, promote_version
from pilotlight.gate.verdict import Verdict, verdict_path
from pilotlight.registry.registry import Registry, version_path
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.graph_writer import FLOAT, model, node, value

DIGITS = fakes.MODELS / "digits"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry on disk, since probes are processes, with the kept digits model as champion."""
    found = Registry(open_store((tmp_path / "store").as_uri()))
    fakes.publish_digits(found)
    return found


@pytest.fixture
def gate(registry: Registry) -> QualityGate:
    return QualityGate(registry, memory_mb=1769)


def refusals(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.why for check in verdict.checks if not check.passed}


def test_the_same_model_again_passes_and_becomes_champion(registry: Registry, gate: QualityGate) -> None:
    again = fakes.publish_digits(registry)
    outcome = promote_version(gate, "digits", again.version, actor="ann")
    assert outcome.verdict.passed, outcome.verdict.reason
    assert outcome.alias_document is not None
    assert registry.load_alias("digits", "champion") == outcome.alias_document
    assert (outcome.alias_document.version, outcome.alias_document.previous, outcome.alias_document.reason) == (
        2,
        1,
        "passed the gate",
    )
    stored = decode_document(registry.store.get(verdict_path("digits", 2)).data, Verdict, "verdict")
    assert stored == outcome.verdict
    assert {check.name for check in stored.checks} == {
        "opens", "files", "golden", "memory", "signature", "finite", "quality", "classes", "latency", "loading",
    }  # fmt: skip


REASONS = {
    "degraded": ("quality", "points over 450 examples, worse in 100.0% of 2000 paired resamples"),
    "nan": ("finite", "It answers 450 of 450 examples with NaN or infinity."),
    "renamed output": ("signature", "Callers of the champion would fail: output logits FP32[-1, 10]"),
    "worse when quantized": ("quantized", "the budget is 0.50."),
    "too large": ("opens", "takes 80,173,123 bytes and models may take 64,000,000"),
    "path out of the folder": ("opens", "it names weights that lie outside the files of its version"),
    "wrong hash": ("opens", "not the manifest's 173123 bytes"),
    "golden answers differ": ("golden", "Golden request 1"),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_is_bad_is_refused_with_its_reason_and_the_champion_stays(registry: Registry, name: str) -> None:
    pytest.importorskip("onnx")
    from tests.load.release import publish
    from tests.models import bad

    kind = bad.kinds()[name]
    version = publish(registry, kind).version
    outcome = promote_version(QualityGate(registry, kind.memory_mb), "digits", version, actor="ann")
    check, why = REASONS[name]
    assert outcome.alias_document is None
    assert why in refusals(outcome.verdict)[check]
    assert registry.load_alias("digits", "champion").version == 1


def test_a_version_is_held_to_the_budget_that_it_promises(registry: Registry, gate: QualityGate) -> None:
    pytest.importorskip("onnx")
    from tests.load.release import publish
    from tests.models import bad

    kind = bad.kinds()["worse when quantized"]
    generous = replace(kind, fields={**kind.fields, "metric": "accuracy", "budget": 5.0})
    refused = gate.evaluate("digits", publish(registry, kind).version, "champion", actor="ann")
    passed = gate.evaluate("digits", publish(registry, generous).version, "champion", actor="ann")
    assert "the budget is 0.50" in refusals(refused)["quantized"]
    assert "quantized" not in refusals(passed)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "1 of its 4 files changed: notes.txt is missing from the store."),
        (b"other", "1 of its 4 files changed: notes.txt holds 5 bytes with sha256"),
    ],
)
def test_a_file_that_was_not_opened_counts_too(
    registry: Registry, gate: QualityGate, content: bytes | None, why: str
) -> None:
    draft = decode_document((DIGITS / "draft.json").read_bytes(), ManifestDraft, "draft.json")
    files = {path.name: path for path in DIGITS.iterdir() if path.name != "draft.json"}
    version = registry.publish_version(draft, {**files, "notes.txt": b"as published"}).version
    path = version_path("digits", version, "notes.txt")
    if content is None:
        registry.store.delete(path)
    else:
        registry.store.put(path, content)
    outcome = promote_version(gate, "digits", version, actor="ann")
    assert outcome.alias_document is None
    assert why in refusals(outcome.verdict)["files"]


def test_force_moves_a_refused_version_and_says_who_and_why(registry: Registry, gate: QualityGate) -> None:
    worse = fakes.publish_digits(registry).version
    registry.store.put(version_path("digits", worse, "model.int8.onnx"), b"no graph")
    outcome = promote_version(gate, "digits", worse, actor="ann", override=GateOverride("ann", "the demo is at noon"))
    assert outcome.alias_document is not None
    assert not outcome.verdict.passed
    assert registry.load_alias("digits", "champion").reason == "forced by ann: the demo is at noon"


def test_a_champion_that_was_moved_meanwhile_is_not_moved_over(registry: Registry, gate: QualityGate) -> None:
    for _ in range(2):
        fakes.publish_digits(registry)
    verdict = gate.evaluate("digits", 2, "champion", actor="ann")
    registry.move_alias("digits", "champion", 3, actor="bob", reason="faster")
    with pytest.raises(ChangedError, match="was moved to version 3 while version 2 was measured against 1"):
        move_alias(gate, verdict, "passed the gate")
    assert registry.load_alias("digits", "champion").version == 3


def test_a_model_without_a_test_set_is_judged_on_what_there_is(tmp_path: Path) -> None:
    registry = Registry(open_store((tmp_path / "store").as_uri()))
    fakes.publish(registry)
    fakes.publish(registry)
    verdict = QualityGate(registry, 1769).evaluate("double", 2, "champion", actor="ann")
    assert verdict.passed, verdict.reason
    assert [check.name for check in verdict.checks] == ["opens", "files", "golden", "memory", "signature", "finite"]


class Probes:
    """What probes of the digits model find, in place of processes: for each version its answers, in turn."""

    def __init__(self, **found: list[np.ndarray[Any, Any] | str]) -> None:
        self.found = found
        self.targets = np.array(fakes.digits()[1])

    def __call__(self, request: ProbeRequest) -> ProbeResult:
        answers = self.found[f"v{request.version}"].pop(0)
        if isinstance(answers, str):
            return ProbeResult(error=answers)
        for precision in ("fp32", "int8"):
            reduce_answers([answers[:200], answers[200:]], self.targets).save(Path(request.answers, f"{precision}.npz"))
        return ProbeResult(load_s=2.0, latency_ms=9.0, peak_mb=100.0, finite=True, answered=("fp32", "int8"))


RIGHT = np.eye(10, dtype=np.float32)[fakes.digits()[1]]


@pytest.mark.parametrize("answers", [RIGHT[:, :1], RIGHT[:, :8], RIGHT[:, 0], RIGHT[:, None].repeat(3, 1)])
def test_answers_of_another_kind_than_the_champions_are_not_checked_and_no_error(
    registry: Registry, gate: QualityGate, monkeypatch: pytest.MonkeyPatch, answers: np.ndarray[Any, Any]
) -> None:
    again = fakes.publish_digits(registry)
    monkeypatch.setattr(evaluation, "run_probe", Probes(v1=[RIGHT, RIGHT], v2=[answers, answers]))
    verdict = gate.evaluate("digits", again.version, "champion", actor="ann")
    (quality,) = [check for check in verdict.checks if check.name == "quality"]
    assert quality.status == "not checked"
    assert quality.why.startswith(f"Its answers are {list(answers.shape[1:])} for each example, the champion's [10]")
    assert {"classes", "quantized"}.isdisjoint(check.name for check in verdict.checks)


def test_a_champion_that_does_not_open_is_told(
    registry: Registry, gate: QualityGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = fakes.publish_digits(registry)
    monkeypatch.setattr(evaluation, "run_probe", Probes(v1=["gone", "gone"], v2=[RIGHT, RIGHT]))
    verdict = gate.evaluate("digits", again.version, "champion", actor="ann")
    assert verdict.passed, verdict.reason
    (quality,) = [check for check in verdict.checks if check.name == "quality"]
    assert (quality.status, quality.why) == ("not checked", "The champion does not answer its test set: gone.")


def test_a_version_that_opens_but_once_is_refused(
    registry: Registry, gate: QualityGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = fakes.publish_digits(registry)
    monkeypatch.setattr(evaluation, "run_probe", Probes(v1=[RIGHT, RIGHT], v2=[RIGHT, "it is gone"]))
    verdict = gate.evaluate("digits", again.version, "champion", actor="ann")
    assert refusals(verdict) == {"opens": "It does not open: it is gone."}


def test_a_champion_that_opens_but_once_has_its_first_times(
    registry: Registry, gate: QualityGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = fakes.publish_digits(registry)
    monkeypatch.setattr(evaluation, "run_probe", Probes(v1=[RIGHT, "it is gone"], v2=[RIGHT, RIGHT]))
    verdict = gate.evaluate("digits", again.version, "champion", actor="ann")
    assert verdict.passed, verdict.reason
    assert {"latency", "loading"} <= {check.name for check in verdict.checks}


def test_a_graph_that_takes_positive_numbers_alone_passes(tmp_path: Path) -> None:
    registry = Registry(open_store((tmp_path / "store").as_uri()))
    fakes.publish(registry, "logarithm", "logarithm")
    assert QualityGate(registry, 1769).evaluate("logarithm", 1, "champion", actor="ann").passed


def test_without_a_test_set_what_answers_nan_is_refused_unless_the_champion_does_too(tmp_path: Path) -> None:
    registry = Registry(open_store((tmp_path / "store").as_uri()))
    fakes.publish(registry)
    nodes = [node("Sub", ["x", "x"], ["zero"]), node("Div", ["zero", "zero"], ["y"])]
    graph = model(nodes, [value("x", FLOAT, ["batch", 3])], [value("y", FLOAT, ["batch", 3])])
    for _ in range(2):
        registry.publish_version(fakes.draft("double"), {"model.onnx": graph})
    outcome = promote_version(QualityGate(registry, 1769), "double", 2, actor="ann")
    assert outcome.alias_document is None
    assert "made-up requests with NaN or infinity" in refusals(outcome.verdict)["finite"]
    registry.move_alias("double", "champion", 2, actor="ann", reason="it is wanted so")
    assert QualityGate(registry, 1769).evaluate("double", 3, "champion", actor="ann").passed


def test_without_a_champion_numbers_that_a_logarithm_takes_are_enough(tmp_path: Path) -> None:
    registry = Registry(open_store((tmp_path / "store").as_uri()))
    fakes.publish(registry, of="logarithm")
    verdict = QualityGate(registry, 1769).evaluate("double", 1, "first", actor="ann")
    assert verdict.passed, verdict.reason
