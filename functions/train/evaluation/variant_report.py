"""The schema of `report.json`, the same for models that were trained here and for those that were brought in."""

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from msgspec import Struct

from functions.train.evaluation.agreement import OutputAgreement, find_worst_agreement
from functions.train.evaluation.variant_choice import Gain
from functions.train.export.candidate_search import QuantizationCandidate
from pilotlight.contracts.manifest import EvaluationSet, Precision


class VariantMeasurement(Struct, frozen=True):
    """The measurements of one variant."""

    loss: float  # mean cross-entropy in nats; of a regression the mean squared error; 0 without right answers
    per_class: dict[str, float]  # recall, 0 to 1; empty for a regression and without right answers
    bytes: int
    latency_ms: float  # median of single requests, in the process, as on a Lambda function of one vCPU
    accuracy: float = 0.0  # the same as in `metrics`, for older readers; 0 for a regression
    metrics: dict[str, float] = {}  # by name: accuracy and balanced_accuracy, or r2, rmse and mae


class VariantReport(Struct, frozen=True, kw_only=True):
    """The measured comparison of the variants of a version: `report.json`."""

    schema_version: int = 1
    serve: Precision
    verdict: str
    metric: str | None = None  # what the model is judged by; None if there were no right answers
    points_lost: float | None = None  # by the smaller variant, in the metric's unit (`pilotlight.contracts.metric`)
    budget: float | None = None  # in the same unit
    agreement: float = 1.0  # share of answers, of examples or tokens, that are the same class in both; of numbers, R2
    # of the smaller variant's against fp32's; without right answers, the worst output's `same`
    max_abs: float = 0.0  # the largest |difference| of an output
    size_ratio: float = 1.0  # of the smaller variant to fp32
    latency_ratio: float = 1.0  # of the smaller variant to fp32
    variants: dict[Precision, VariantMeasurement]
    evaluation: EvaluationSet | None = None  # on what the metrics were measured
    calibration: EvaluationSet | None = None  # of the quantizer
    machine: str = ""
    rungs: tuple[QuantizationCandidate, ...] = ()  # of the quantization ladder, in the order in which they were tried
    outputs: tuple[OutputAgreement, ...] = ()  # how far the variants agree, output by output
    compared: str = ""  # on what they were compared: "evaluation examples", "made-up examples"
    requests: int = 0  # examples that were compared
    # As reports of brought in models had them before they had all of the above.
    cosine: float = 1.0  # of the worst output
    bytes: dict[Precision, int] = {}
    metrics: dict[Precision, dict[str, float]] = {}


def summarize_variants(
    measured: Mapping[Precision, VariantMeasurement],
    small: Precision | None,
    machine: str,
    outputs: Sequence[OutputAgreement] = (),
) -> dict[str, Any]:
    """Summarize measurements: the fields of a report that follow from them."""
    fields: dict[str, Any] = {
        "variants": dict(measured),
        "machine": machine,
        "outputs": tuple(outputs),
        "bytes": {name: one.bytes for name, one in measured.items()},
        "metrics": {name: one.metrics for name, one in measured.items() if one.metrics},
    }
    if small is not None:
        gain = compute_gain(measured["fp32"], measured[small])
        fields |= {"size_ratio": gain.size_ratio, "latency_ratio": gain.latency_ratio}
    if worst := find_worst_agreement(outputs):
        fields |= {"agreement": worst.same, "cosine": min(one.cosine for one in outputs)}
        fields["max_abs"] = max(one.max_abs for one in outputs)
    return fields


def compute_gain(full: VariantMeasurement, reduced: VariantMeasurement) -> Gain:
    """Compute what a variant saves; without times, both take as long."""
    ratio = reduced.latency_ms / full.latency_ms if full.latency_ms else 1.0
    return Gain(reduced.bytes / full.bytes, ratio, reduced.latency_ms - full.latency_ms)


def describe_machine() -> str:
    """Describe the machine that measured the latencies."""
    return f"{platform.machine()}, {os.cpu_count()} CPUs, onnxruntime {version('onnxruntime')}"
