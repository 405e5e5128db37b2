"""Each check says yes or no, and why, in one sentence with the numbers."""

import numpy as np
from msgspec import structs

from pilotlight.contracts.manifest import Manifest
from pilotlight.gate import checks
from pilotlight.gate.answers import EvaluationOutputs
from pilotlight.gate.metrics import METRICS
from pilotlight.gate.verdict import GateLimits
from tests import fakes

LABELS = ("cat", "dog")


def answers(right: int, of: int = 100) -> EvaluationOutputs:
    """Two classes by turns; the first `right` examples are right."""
    targets = np.arange(of) % 2
    given = np.where(np.arange(of) < right, targets, 1 - targets)
    return EvaluationOutputs(np.eye(2)[given], targets)


def test_three_points_lost_by_quantization_are_too_many() -> None:
    check = checks.check_quantization(METRICS["accuracy"], "accuracy", answers(95), answers(98), 0.5)
    assert (check.passed, check.why) == (False, "Quantization costs 3.00 points of accuracy, the budget is 0.50.")


def test_what_is_just_within_the_budget_is_within_it() -> None:
    assert checks.check_quantization(METRICS["accuracy"], "accuracy", answers(97), answers(98), 1.0).passed


def promising(budget: float | None, metric: str | None = "accuracy") -> Manifest:
    return structs.replace(fakes.stepped(None), metric=metric, budget=budget)


def test_the_budget_is_the_one_that_the_version_promises() -> None:
    assert checks.get_quantization_budget(promising(0.1), "accuracy", GateLimits()) == 0.1
    assert checks.get_quantization_budget(promising(2.0), "accuracy", GateLimits()) == 2.0
    assert checks.get_quantization_budget(promising(None), "accuracy", GateLimits()) == 0.5
    assert checks.get_quantization_budget(promising(None, None), "loss", GateLimits()) == 0.02
    assert checks.get_quantization_budget(promising(2.0), "loss", GateLimits()) == 0.02


def test_the_gates_own_limit_is_the_most_that_a_promise_counts_for() -> None:
    assert checks.get_quantization_budget(promising(2.0), "accuracy", GateLimits(quantized_points=1.0)) == 1.0
    assert checks.get_quantization_budget(promising(0.1), "accuracy", GateLimits(quantized_points=1.0)) == 0.1


def test_a_small_loss_that_chance_explains_passes_and_a_large_one_does_not() -> None:
    limits = GateLimits()
    assert checks.check_quality(METRICS["accuracy"], "accuracy", answers(97), answers(98), limits).passed
    refused = checks.check_quality(METRICS["accuracy"], "accuracy", answers(88), answers(98), limits)
    assert not refused.passed
    assert refused.why.startswith(
        "Accuracy is 0.8800, the champion's 0.9800: -10.00 points over 100 examples, worse in"
    )


def test_a_class_that_collapsed_is_named_although_the_mean_is_fine() -> None:
    ours, theirs = answers(100), answers(100)
    ours.outputs[1:60:2] = [1, 0]  # thirty of fifty dogs are cats now
    check = checks.check_class_recalls(ours, theirs, LABELS, GateLimits())
    assert (check.passed, check.why) == (
        False,
        "Of class 'dog' it recognises 60.0 points less than the champion; 20 are let through.",
    )


def test_a_class_with_few_examples_is_not_judged_alone() -> None:
    ours, theirs = answers(100, of=100), answers(100)
    ours.outputs[1:60:2] = [1, 0]
    assert checks.check_class_recalls(ours, theirs, LABELS, GateLimits(class_examples=51)).passed


def test_times_are_refused_beyond_ratio_and_allowance_only() -> None:
    assert checks.check_duration("latency", "A warm request", 0.3, 0.1, ratio=2, allowance_ms=5).passed
    assert checks.check_duration("latency", "A warm request", 15, 10, ratio=2, allowance_ms=5).passed
    assert not checks.check_duration("latency", "A warm request", 30, 10, ratio=2, allowance_ms=5).passed


def test_infinities_are_counted_by_example() -> None:
    outputs = np.zeros((10, 3))
    outputs[2] = np.inf
    check = checks.check_finite_outputs(outputs)
    assert (check.passed, check.why) == (False, "It answers 1 of 10 examples with NaN or infinity.")


def test_a_language_model_is_judged_in_nats_and_less_is_better() -> None:
    def guessing(sure: float) -> EvaluationOutputs:
        return EvaluationOutputs(np.tile([sure, 0.0], (100, 8, 1)), np.zeros((100, 8), np.int64))

    loss, champion = METRICS["loss"], guessing(1.0)
    assert checks.check_quality(loss, "loss", guessing(0.95), champion, GateLimits()).passed  # 0.0137 nats worse
    refused = checks.check_quality(loss, "loss", guessing(0.8), champion, GateLimits())
    assert not refused.passed
    assert "-0.0578 nats per token over 100 examples" in refused.why
    assert refused.why.endswith("the margin is 0.0200 nats per token at 95%.")
    costly = checks.check_quantization(loss, "loss", guessing(0.8), champion, 0.02)
    assert (costly.passed, costly.why) == (
        False,
        "Quantization costs 0.0578 nats per token of loss, the budget is 0.0200.",
    )
