"""The gate's checks, each as a function of what was measured.

A check without data refuses nothing and is "not checked": the verdict never claims what was not measured.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from pilotlight.contracts.manifest import Manifest, TensorSpec
from pilotlight.contracts.metric import METRICS, PERPLEXITY, SOURCE_PERPLEXITY
from pilotlight.gate import metrics
from pilotlight.gate.answers import EvaluationOutputs
from pilotlight.gate.metrics import WeightedMetric
from pilotlight.gate.probe_result import ProbeResult, TextTimes
from pilotlight.gate.verdict import GateCheck, GateLimits

USUAL_CONTEXT_TOKENS = 2048  # of prompt and answer, that a function must have the memory for


def check_opens(version: Manifest, probe_result: ProbeResult) -> GateCheck:
    """Check that the serving code can fetch, hash and open the version."""
    if probe_result.error is not None:
        return GateCheck("opens", False, f"It does not open: {probe_result.error.rstrip('.')}.")
    numbers = {"bytes": version.served_bytes, "load_s": probe_result.load_s}
    return GateCheck(
        "opens", True, f"It opened in {1000 * probe_result.load_s:.0f} ms, sizes and sha256 as promised.", numbers
    )


def check_files(version: Manifest, changed: Sequence[str]) -> GateCheck:
    """Check that every file in the manifest is as published, also those that only another machine opens."""
    if changed:
        return GateCheck(
            "files", False, f"{len(changed)} of its {len(version.files)} files changed: {'; '.join(changed)}."
        )
    return GateCheck("files", True, f"All its {len(version.files)} files are as published, by size and sha256.")


def check_signature(version: Manifest, champion: Manifest) -> GateCheck:
    """Check that the champion's callers can call the version: the same inputs, and at least the champion's outputs."""
    lost = [
        f"output {format_tensor_spec(spec)}"
        for spec in champion.outputs
        if format_tensor_spec(spec) not in map(format_tensor_spec, version.outputs)
    ]
    changed = [
        f"input {format_tensor_spec(spec)}"
        for spec in champion.inputs
        if format_tensor_spec(spec) not in map(format_tensor_spec, version.inputs)
    ]
    new = [
        f"new input {format_tensor_spec(spec)}"
        for spec in version.inputs
        if format_tensor_spec(spec) not in map(format_tensor_spec, champion.inputs)
    ]
    if wrong := [*lost, *changed, *new]:
        have = ", ".join(map(format_tensor_spec, (*version.inputs, *version.outputs)))
        return GateCheck("signature", False, f"Callers of the champion would fail: {', '.join(wrong)}; it has {have}.")
    return GateCheck("signature", True, "It takes and gives what the champion does.")


def format_tensor_spec(spec: TensorSpec) -> str:
    """Format what callers depend on in a tensor: name, datatype and shape."""
    return f"{spec.name} {spec.datatype}{spec.v2_shape}"


def check_golden(version: Manifest, probe_result: ProbeResult) -> GateCheck:
    """Check that the version answers its golden requests as it did when it was exported."""
    if probe_result.golden is not None:
        return GateCheck("golden", False, probe_result.golden)
    kind, advice = ("requests", ": publish it with --sample") if version.decoder is None else ("prompts", "")
    if version.golden is None:
        why = f"It brought no golden {kind}, so nothing tells whether it answers as it did{advice}."
        return GateCheck("golden", True, why, checked=False)
    return GateCheck("golden", True, f"Its golden {kind} are answered as recorded.")


def check_finite_outputs(outputs: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> GateCheck:
    """Check that every answer to the test set is finite."""
    return check_finite_examples(np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1))


def check_finite_examples(finite: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> GateCheck:
    """Check that every answer to the test set is finite, where `finite` says so for each example."""
    count, wrong = len(finite), int((~finite).sum())
    numbers = {"examples": float(count), "not_finite": float(wrong)}
    if wrong:
        return GateCheck("finite", False, f"It answers {wrong} of {count} examples with NaN or infinity.", numbers)
    return GateCheck("finite", True, f"All answers to {count} examples are finite.", numbers)


def check_finite_probes(ours: ProbeResult, theirs: ProbeResult | None) -> GateCheck:
    """Check, without a test set, that answers to generated requests are finite, unless the champion's are not.

    What the champion answers must be answered as well; without one, a request with finite answers is enough, since a
    logarithm takes no negative number.
    """
    lost = ours.finite_at_first is False and theirs is not None and theirs.finite_at_first is True
    if lost or (ours.finite is False and (theirs is None or theirs.finite is not False)):
        why = "It answers made-up requests with NaN or infinity, and no test set says that this is right."
        return GateCheck("finite", False, why)
    if ours.finite is None:
        return GateCheck("finite", True, "It answers no made-up request, and no test set was sent.", checked=False)
    return GateCheck("finite", True, "Made-up requests are answered as numbers, or as the champion answers them.")


def check_quality(
    chosen_metric: WeightedMetric,
    metric_name: str,
    ours: EvaluationOutputs,
    theirs: EvaluationOutputs,
    limits: GateLimits,
) -> GateCheck:
    """Check that the version is not worse than the champion on the same examples, by the margin and with confidence."""
    kind = chosen_metric.definition
    margin = kind.default_budget if limits.margin_points is None else limits.margin_points
    gained, worse = (
        metrics.compute_gain(chosen_metric, ours, theirs),
        metrics.compute_probability_worse(chosen_metric, ours, theirs),
    )
    numbers = {
        "value": metrics.compute_metric(chosen_metric, ours),
        "champion": metrics.compute_metric(chosen_metric, theirs),
        "points_gained": gained,
        "worse_share": worse,
        "examples": float(len(ours.targets)),
    }
    said = (
        f"{metric_name} is {numbers['value']:.4f}, the champion's {numbers['champion']:.4f}: "
        f"{gained:+.{kind.decimals}f} {kind.unit} over "
        f"{len(ours.targets)} examples, worse in {worse:.1%} of {metrics.RESAMPLES} paired resamples"
    )
    refused = gained < -margin and worse >= limits.confidence
    why = f"{said}; the margin is {margin:.{kind.decimals}f} {kind.unit} at {limits.confidence:.0%}."
    return GateCheck("quality", not refused, why[0].upper() + why[1:], numbers)


def skip_quality(ours: str, theirs: str, champion: ProbeResult) -> GateCheck:
    """Tell why the version is not compared with the champion, by the shapes of their answers to its test set."""
    why = f"Its answers are {ours} for each example, the champion's {theirs}: they cannot be compared."
    if not theirs:
        why = f"The champion does not answer its test set: {(champion.error or 'it takes other inputs').rstrip('.')}."
    return GateCheck("quality", True, why, checked=False)


def get_quantization_budget(version: Manifest, metric_name: str, limits: GateLimits) -> float:
    """Return what quantization may cost: the budget in the version's manifest, capped by the gate's own limit.

    If the manifest has no budget, or has one for another metric than the one in use, that metric's default budget
    applies.
    """
    promised = version.budget if version.metric == metric_name else None
    budget = metrics.find_metric(metric_name).definition.default_budget if promised is None else promised
    return budget if limits.quantized_points is None else min(budget, limits.quantized_points)


def check_quantization(
    chosen_metric: WeightedMetric, metric_name: str, served: EvaluationOutputs, full: EvaluationOutputs, budget: float
) -> GateCheck:
    """Check that the loss by quantization is within its budget."""
    kind, lost = chosen_metric.definition, 0 - metrics.compute_gain(chosen_metric, served, full)
    numbers = {"points_lost": lost, "budget": budget}
    held = lost <= budget + 1e-9
    why = f"Quantization costs {kind.format_difference(lost, metric_name)}, the budget is {budget:.{kind.decimals}f}."
    return GateCheck("quantized", held, why, numbers)


def check_class_recalls(
    ours: EvaluationOutputs, theirs: EvaluationOutputs, labels: Sequence[str], limits: GateLimits
) -> GateCheck:
    """Check that no class's recall has collapsed, whatever the mean is."""
    before, worst = metrics.compute_recalls(theirs), ("", 0.0)
    for label, (recall, examples) in metrics.compute_recalls(ours).items():
        lost = 100 * (before[label][0] - recall)
        if examples >= limits.class_examples and lost > worst[1]:
            worst = (labels[label] if label < len(labels) else str(label), lost)
    name, lost = worst
    if lost > limits.class_points:
        why = f"Of class {name!r} it recognises {lost:.1f} points less than the champion"
        return GateCheck("classes", False, f"{why}; {limits.class_points:g} are let through.", {"worst_points": lost})
    why = f"The class that lost most, {name!r}, lost {lost:.1f} points." if name else "No class lost anything."
    return GateCheck("classes", True, why, {"worst_points": lost})


def check_latency(ours: ProbeResult, theirs: ProbeResult, limits: GateLimits) -> GateCheck:
    """Check that a warm request does not take much longer than the champion's."""
    return check_duration(
        "latency", "A warm request", ours.latency_ms, theirs.latency_ms, limits.latency_ratio, limits.latency_ms
    )


def check_load_time(ours: ProbeResult, theirs: ProbeResult, limits: GateLimits) -> GateCheck:
    """Check that opening the version does not take much longer than opening the champion."""
    milliseconds = 1000 * limits.load_s
    return check_duration(
        "loading", "Loading", 1000 * ours.load_s, 1000 * theirs.load_s, limits.load_ratio, milliseconds
    )


def check_duration(
    name: str, subject: str, ours_ms: float, theirs_ms: float, ratio: float, allowance_ms: float
) -> GateCheck:
    """Compare two times in ms; refuse a time that exceeds both the ratio and the allowance."""
    refused = ours_ms > theirs_ms * ratio and ours_ms > theirs_ms + allowance_ms
    why = f"{subject} takes {ours_ms:.2f} ms, the champion's {theirs_ms:.2f}; {ratio:g} times as long is let through."
    return GateCheck(name, not refused, why, {"ms": ours_ms, "champion_ms": theirs_ms})


def check_text_times(ours: TextTimes, theirs: TextTimes, limits: GateLimits) -> Iterator[GateCheck]:
    """Check that neither a language model's first token nor its further ones take much longer than the champion's."""
    for name, subject, mine, other in (
        ("first token", "The first token", ours.first_token_ms, theirs.first_token_ms),
        ("pace", "A further token", ours.token_ms, theirs.token_ms),
    ):
        yield check_duration(name, subject, mine, other, limits.latency_ratio, limits.latency_ms)


def check_finite_scores(probe_result: ProbeResult) -> GateCheck:
    """Check that a language model gives a probability to every token that it is shown."""
    if probe_result.finite is False:
        why = "It scores tokens of its prompts with NaN or infinity."
        return GateCheck("finite", False, why)
    return GateCheck("finite", True, "Every token of its prompts has a probability.")


def check_perplexity(version: Manifest, limits: GateLimits) -> GateCheck:
    """Check by the report's numbers that the served variant is within its budget of the unquantized model."""
    kind, served = METRICS[PERPLEXITY], version.variants[version.serve].metrics
    ours, source = served.get(PERPLEXITY), find_source_perplexity(version)
    if ours is None or source is None:
        why = "Its manifest has no perplexity of the served variant and the unquantized model, so none is compared."
        return GateCheck("quantized", True, why, checked=False)
    promised = version.budget if version.metric == PERPLEXITY else None
    budget = kind.default_budget if promised is None else promised
    budget = budget if limits.quantized_points is None else min(budget, limits.quantized_points)
    lost = kind.compute_degradation(source, ours)
    numbers = {"perplexity": ours, "source": source, "points_lost": lost, "budget": budget}
    why = (
        f"Perplexity is {ours:.3f}, the unquantized model's {source:.3f}: {lost:+.2f} %, the budget is {budget:.2f} %."
    )
    return GateCheck("quantized", lost <= budget + 1e-9, why, numbers)


def find_source_perplexity(version: Manifest) -> float | None:
    """Find the unquantized model's perplexity: in a variant in fp32, else in what was measured of the served one."""
    full = version.variants.get("fp32")
    known = None if full is None else full.metrics.get(PERPLEXITY)
    return known if known is not None else version.variants[version.serve].metrics.get(SOURCE_PERPLEXITY)


def check_champion_perplexity(version: Manifest, champion: Manifest, limits: GateLimits) -> GateCheck:
    """Check by the reports' numbers that the version is not worse than the champion, if both were measured alike."""
    kind = METRICS[PERPLEXITY]
    ours, theirs = (each.variants[each.serve].metrics.get(PERPLEXITY) for each in (version, champion))
    is_same_text = version.evaluation is not None and version.evaluation == champion.evaluation
    if ours is None or theirs is None or not is_same_text or not version.has_same_tokenizer(champion):
        why = "Its perplexity and the champion's are not of the same text and tokens, so they are not compared."
        return GateCheck("quality", True, why, checked=False)
    margin = kind.default_budget if limits.margin_points is None else limits.margin_points
    lost = kind.compute_degradation(theirs, ours)
    why = f"Perplexity is {ours:.3f}, the champion's {theirs:.3f}: {lost:+.2f} %, the margin is {margin:.2f} %."
    return GateCheck("quality", lost <= margin + 1e-9, why, {"perplexity": ours, "champion": theirs})


def check_memory(version: Manifest, probe_result: ProbeResult, memory_mb: int) -> GateCheck:
    """Check that the probe's process stayed within the function's memory.

    Of a language model, it has to hold the keys and values of a usual context too, which the probe has not filled.
    """
    peak_mb, held, parameter = probe_result.peak_mb, "", "ModelMemory"
    if version.decoder is not None:
        tokens = min(USUAL_CONTEXT_TOKENS, version.decoder.context_length)
        peak_mb += version.decoder.cache_bytes_per_token * tokens / 1e6
        held, parameter = f" with the keys and values of {tokens:,} tokens", "GenerateMemory"
    numbers = {"peak_mb": peak_mb, "memory_mb": float(memory_mb), "bytes": float(version.served_bytes)}
    said = f"It took {peak_mb:.0f} MB at its peak{held}, and the function has {memory_mb}"
    if peak_mb > memory_mb:
        return GateCheck(
            "memory", False, f"{said}; raise {parameter} in template.yaml, or publish a smaller one.", numbers
        )
    return GateCheck("memory", True, f"{said}.", numbers)
