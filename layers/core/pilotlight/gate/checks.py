"""The questions that the gate puts to a version, each as a function of what was measured.

A check that has nothing to go by passes and says so: the verdict never claims what was not measured.
"""

from collections.abc import Sequence

import numpy as np

from pilotlight.contracts.manifest import Manifest, TensorSpec
from pilotlight.gate import metrics
from pilotlight.gate.metrics import Answers, Metric
from pilotlight.gate.probe import Probe
from pilotlight.gate.verdict import Check, Limits


def opens(version: Manifest, found: Probe) -> Check:
    """It is fetched, hashed and opened by the code that serves."""
    if found.error is not None:
        return Check("opens", False, f"It does not open: {found.error.rstrip('.')}.")
    numbers = {"bytes": version.bytes, "load_s": found.load_s}
    return Check("opens", True, f"It opened in {1000 * found.load_s:.0f} ms, sizes and sha256 as promised.", numbers)


def files(version: Manifest, changed: Sequence[str]) -> Check:
    """Every file that its manifest names is as published, those too that another machine would open."""
    if changed:
        return Check("files", False, f"{len(changed)} of its {len(version.files)} files changed: {'; '.join(changed)}.")
    return Check("files", True, f"All its {len(version.files)} files are as published, by size and sha256.")


def signature(version: Manifest, champion: Manifest) -> Check:
    """Callers of the champion can call it: the same inputs, and every output that there was."""
    lost = [f"output {text(spec)}" for spec in champion.outputs if text(spec) not in map(text, version.outputs)]
    changed = [f"input {text(spec)}" for spec in champion.inputs if text(spec) not in map(text, version.inputs)]
    new = [f"new input {text(spec)}" for spec in version.inputs if text(spec) not in map(text, champion.inputs)]
    if wrong := [*lost, *changed, *new]:
        have = ", ".join(map(text, (*version.inputs, *version.outputs)))
        return Check("signature", False, f"Callers of the champion would fail: {', '.join(wrong)}; it has {have}.")
    return Check("signature", True, "It takes and gives what the champion does.")


def text(spec: TensorSpec) -> str:
    """A tensor as far as callers depend on it."""
    return f"{spec.name} {spec.datatype}{spec.free_shape}"


def golden(version: Manifest, found: Probe) -> Check:
    """It answers its golden requests as it did when it was exported."""
    if found.golden is not None:
        return Check("golden", False, found.golden)
    if version.golden is None:
        return Check("golden", True, "It brought no golden requests.")
    return Check("golden", True, "Its golden requests are answered as recorded.")


def finite(outputs: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> Check:
    """Every answer to the test set is a number."""
    wrong = int((~np.isfinite(outputs)).reshape(len(outputs), -1).any(axis=1).sum())
    numbers = {"examples": float(len(outputs)), "not_finite": float(wrong)}
    if wrong:
        return Check("finite", False, f"It answers {wrong} of {len(outputs)} examples with NaN or infinity.", numbers)
    return Check("finite", True, f"All answers to {len(outputs)} examples are finite.", numbers)


def numbers(ours: Probe, theirs: Probe | None) -> Check:
    """Where there is no test set: made-up requests are answered with numbers, or with none by the champion too."""
    if ours.finite is False and (theirs is None or theirs.finite is not False):
        why = "It answers made-up requests with NaN or infinity, and no test set says that this is right."
        return Check("finite", False, why)
    return Check("finite", True, "Made-up requests are answered as numbers, or as the champion answers them.")


def quality(judged: Metric, name: str, ours: Answers, theirs: Answers, limits: Limits) -> Check:
    """It is not worse than the champion on the same examples: by more than the margin, and surely."""
    kind = judged.kind
    margin = kind.budget if limits.margin_points is None else limits.margin_points
    gained, worse = metrics.gained(judged, ours, theirs), metrics.worse_share(judged, ours, theirs)
    numbers = {
        "value": metrics.value(judged, ours),
        "champion": metrics.value(judged, theirs),
        "points_gained": gained,
        "worse_share": worse,
        "examples": float(len(ours.targets)),
    }
    said = (
        f"{name} is {numbers['value']:.4f}, the champion's {numbers['champion']:.4f}: "
        f"{gained:+.{kind.digits}f} {kind.unit} over "
        f"{len(ours.targets)} examples, worse in {worse:.1%} of {metrics.RESAMPLES} paired resamples"
    )
    refused = gained < -margin and worse >= limits.confidence
    why = f"{said}; the margin is {margin:.{kind.digits}f} {kind.unit} at {limits.confidence:.0%}."
    return Check("quality", not refused, why[0].upper() + why[1:], numbers)


def allowed(version: Manifest, name: str, limits: Limits) -> float:
    """What quantization may cost: as much as the version's manifest promises, and no more than the gate's own limit.

    A version that promises nothing, or about another metric than the one it is judged by, is held to the metric's own.
    """
    promised = version.budget if version.metric == name else None
    budget = metrics.find(name).kind.budget if promised is None else promised
    return budget if limits.quantized_points is None else min(budget, limits.quantized_points)


def quantized(judged: Metric, name: str, served: Answers, full: Answers, budget: float) -> Check:
    """What quantization cost is within its budget."""
    kind, lost = judged.kind, 0 - metrics.gained(judged, served, full)
    numbers = {"points_lost": lost, "budget": budget}
    held = lost <= budget + 1e-9
    why = f"Quantization costs {kind.told(lost, name)}, the budget is {budget:.{kind.digits}f}."
    return Check("quantized", held, why, numbers)


def classes(ours: Answers, theirs: Answers, labels: Sequence[str], limits: Limits) -> Check:
    """No class has collapsed, whatever the mean says."""
    before, worst = metrics.recalls(theirs), ("", 0.0)
    for label, (recall, examples) in metrics.recalls(ours).items():
        lost = 100 * (before[label][0] - recall)
        if examples >= limits.class_examples and lost > worst[1]:
            worst = (labels[label] if label < len(labels) else str(label), lost)
    name, lost = worst
    if lost > limits.class_points:
        why = f"Of class {name!r} it recognises {lost:.1f} points less than the champion"
        return Check("classes", False, f"{why}; {limits.class_points:g} are let through.", {"worst_points": lost})
    why = f"The class that lost most, {name!r}, lost {lost:.1f} points." if name else "No class lost anything."
    return Check("classes", True, why, {"worst_points": lost})


def latency(ours: Probe, theirs: Probe, limits: Limits) -> Check:
    """A warm request takes not much longer than the champion's."""
    return slower(
        "latency", "A warm request", ours.latency_ms, theirs.latency_ms, limits.latency_ratio, limits.latency_ms
    )


def loading(ours: Probe, theirs: Probe, limits: Limits) -> Check:
    """Neither does opening it."""
    milliseconds = 1000 * limits.load_s
    return slower("loading", "Loading", 1000 * ours.load_s, 1000 * theirs.load_s, limits.load_ratio, milliseconds)


def slower(name: str, what: str, ours_ms: float, theirs_ms: float, ratio: float, allowance_ms: float) -> Check:
    """Times in ms; refused beyond the ratio, when it is by more than the allowance too."""
    refused = ours_ms > theirs_ms * ratio and ours_ms > theirs_ms + allowance_ms
    why = f"{what} takes {ours_ms:.2f} ms, the champion's {theirs_ms:.2f}; {ratio:g} times as long is let through."
    return Check(name, not refused, why, {"ms": ours_ms, "champion_ms": theirs_ms})


def memory(version: Manifest, found: Probe, memory_mb: int) -> Check:
    """The process that opened and asked it stayed within the function's memory."""
    numbers = {"peak_mb": found.peak_mb, "memory_mb": float(memory_mb), "bytes": float(version.bytes)}
    said = f"It took {found.peak_mb:.0f} MB at its peak, and the function has {memory_mb}"
    if found.peak_mb > memory_mb:
        return Check("memory", False, f"{said}; raise ModelMemory in template.yaml, or publish a smaller one.", numbers)
    return Check("memory", True, f"{said}.", numbers)
