"""The gate for language models: golden prompts, perplexity, memory and times, by the probe that serves them."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from pilotlight.contracts.manifest import EvaluationSet, Manifest, Variant
from pilotlight.contracts.metric import SOURCE_PERPLEXITY
from pilotlight.gate import checks
from pilotlight.gate.evaluation import QualityGate
from pilotlight.gate.probe_result import ProbeResult, TextTimes
from pilotlight.gate.promotion import promote_version
from pilotlight.gate.verdict import GateLimits, Verdict
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests.language_model_versions import publish_scripted

LIMITS = GateLimits()


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry on disk, since probes are processes, with a scripted champion."""
    found = Registry(open_store((tmp_path / "store").as_uri()))
    publish_scripted(found)
    return found


def refusals(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.why for check in verdict.checks if not check.passed}


def test_the_same_model_again_passes_and_becomes_champion(registry: Registry) -> None:
    again = publish_scripted(registry)
    outcome = promote_version(QualityGate(registry, 1769), "chat", again.version, actor="ann")
    assert outcome.verdict.passed, outcome.verdict.reason
    assert {check.name: check.status for check in outcome.verdict.checks} == {
        "opens": "passed", "files": "passed", "golden": "passed", "memory": "passed", "signature": "passed",
        "finite": "passed", "quantized": "passed", "quality": "not checked", "first token": "passed", "pace": "passed",
        "loading": "passed",
    }  # fmt: skip


def test_a_version_that_continues_its_golden_prompts_otherwise_is_refused(registry: Registry) -> None:
    other = publish_scripted(registry, ("Lyon", " is", "."), recorded=("Paris", " is", "."))
    verdict = QualityGate(registry, 1769).evaluate("chat", other.version, "champion", actor="ann")
    assert refusals(verdict).keys() == {"golden"}
    assert "is continued with 'Lyon is." in verdict.reason
    assert "recorded as 'Paris is." in verdict.reason


def test_a_graph_that_fails_does_not_open(registry: Registry) -> None:
    broken = publish_scripted(registry, fail_after=0, recorded=("Paris", " is", "."))
    verdict = QualityGate(registry, 1769).evaluate("chat", broken.version, "champion", actor="ann")
    assert not verdict.passed
    assert "The language model's graph failed" in verdict.reason


def test_a_version_is_measured_against_the_memory_of_the_function_that_generates(registry: Registry) -> None:
    gate = QualityGate(registry, 10_240, generation_memory_mb=512)
    assert gate.evaluate("chat", 1, "champion", actor="ann").memory_mb == 512


def test_the_keys_and_values_of_a_usual_context_must_fit_too(registry: Registry) -> None:
    manifest = registry.load_manifest("chat", 1)
    assert manifest.decoder is not None
    large = replace(
        manifest, decoder=replace(manifest.decoder, layers=32, kv_heads=8, head_size=128, context_length=8192)
    )
    check = checks.check_memory(large, ProbeResult(peak_mb=500.0), 1000)
    assert not check.passed
    assert (
        "1037 MB at its peak with the keys and values of 2,048 tokens, and the function has 1000; raise Gen"
        in check.why
    )
    assert checks.check_memory(large, ProbeResult(peak_mb=400.0), 1000).passed


def describe(registry: Registry, **metrics: float) -> Manifest:
    """A version whose served variant was measured so."""
    manifest = registry.load_manifest("chat", 1)
    return replace(manifest, variants={"int8": Variant("model.onnx", metrics)})


@pytest.mark.parametrize(("ours", "passes"), [(10.0, True), (10.099, True), (10.2, False), (9.0, True)])
def test_perplexity_must_be_within_its_budget_of_the_unquantized_models(
    registry: Registry, ours: float, passes: bool
) -> None:
    check = checks.check_perplexity(describe(registry, perplexity=ours, **{SOURCE_PERPLEXITY: 10.0}), LIMITS)
    assert (check.passed, check.checked) == (passes, True)
    assert f"Perplexity is {ours:.3f}, the unquantized model's 10.000" in check.why


def test_a_variant_in_fp32_is_what_the_served_one_is_compared_with(registry: Registry) -> None:
    manifest = describe(registry, perplexity=12.0)
    both = replace(manifest, variants=manifest.variants | {"fp32": Variant("model.onnx", {"perplexity": 10.0})})
    check = checks.check_perplexity(both, LIMITS)
    assert not check.passed
    assert check.numbers["points_lost"] == pytest.approx(20.0)


def test_the_gates_own_limit_caps_a_versions_budget(registry: Registry) -> None:
    manifest = describe(registry, perplexity=10.05, **{SOURCE_PERPLEXITY: 10.0})
    assert checks.check_perplexity(manifest, LIMITS).passed
    assert not checks.check_perplexity(manifest, GateLimits(quantized_points=0.1)).passed


def test_without_numbers_nothing_is_claimed(registry: Registry) -> None:
    assert checks.check_perplexity(describe(registry), LIMITS).status == "not checked"


def test_perplexities_of_the_same_text_are_compared_with_the_champions(registry: Registry) -> None:
    text = EvaluationSet("ab" * 32, 100)
    better, worse = (replace(describe(registry, perplexity=value), evaluation=text) for value in (10.0, 11.0))
    assert checks.check_champion_perplexity(better, worse, LIMITS).status == "passed"
    assert checks.check_champion_perplexity(worse, better, LIMITS).status == "refused"
    other = replace(better, evaluation=EvaluationSet("cd" * 32, 100))
    assert checks.check_champion_perplexity(worse, other, LIMITS).status == "not checked"


def test_slow_first_tokens_and_slow_further_tokens_are_told_apart() -> None:
    found = checks.check_text_times(TextTimes(50.0, 30.0), TextTimes(40.0, 10.0), LIMITS)
    assert {check.name: check.passed for check in found} == {"first token": True, "pace": False}


def test_scores_that_are_not_finite_are_refused() -> None:
    assert not checks.check_finite_scores(ProbeResult(finite=False)).passed
