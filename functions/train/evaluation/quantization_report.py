"""The report: what quantization cost and gained, measured on the same examples and in the same minute.

It has the metrics, size and latency of both variants, the candidates of the search, and the verdict on which variant is
served. The graphs are run as the handlers run them.
"""

import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
from msgspec import Struct
from rich.console import Group, RenderableType
from rich.table import Table

from functions.train.data import Array
from functions.train.data.cleaning import CleaningReport
from functions.train.data.dataset import Dataset
from functions.train.evaluation.diagnostics import Diagnosis, diagnose_answers
from functions.train.evaluation.metrics import evaluate_outputs, format_metric, score_regression
from functions.train.export.quantization_search import QuantizationCandidate
from functions.train.export.quantize import run_graph
from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import EvaluationSet, Precision
from pilotlight.contracts.metric import METRICS
from pilotlight.recipes.data_schema import Data
from pilotlight.recipes.schema import list_builtin_recipes, load_recipe
from pilotlight.runtime.session import Session, open_session

LATENCY_ROUNDS = 200  # single requests per variant


class VariantMeasurement(Struct, frozen=True):
    """The measurements of one variant."""

    loss: float  # mean cross-entropy in nats; for a regression, the mean squared error
    per_class: dict[str, float]  # recall, 0 to 1; empty for a regression
    bytes: int
    latency_ms: float  # median of single requests, in the process, as on a Lambda function of one vCPU
    accuracy: float = 0.0  # the same as in `metrics`, for older readers; 0 for a regression
    metrics: dict[str, float] = {}  # by name: accuracy and balanced_accuracy, or r2, rmse and mae


class BaselineScore(Struct, frozen=True):
    """The score of the baseline on one set."""

    loss: float  # nats per token
    bits_per_byte: float


class Baseline(Struct, frozen=True):
    """What a language model has to beat: an n-gram model on the same tokens."""

    name: str
    validation: BaselineScore
    test: BaselineScore


class QuantizationReport(Struct, frozen=True, kw_only=True):
    """The measured comparison of the variants of a version: `report.json`."""

    schema_version: int = 1
    serve: Precision
    verdict: str
    points_lost: float  # by the smaller variant, in the metric's unit (`pilotlight.contracts.metric`); negative: gained
    budget: float  # in the same unit
    agreement: float  # share of answers, of examples or tokens, that are the same class in both; of numbers, R2 of the
    # smaller variant's against fp32's
    max_abs: float  # the largest |difference| of an output
    size_ratio: float  # int8, or int4, / fp32
    latency_ratio: float  # int8, or int4, / fp32
    variants: dict[Precision, VariantMeasurement]
    evaluation: EvaluationSet  # on the test set
    calibration: EvaluationSet  # of the quantizer, a part of the training set
    machine: str
    metric: str = "accuracy"  # what the model is judged by
    rungs: tuple[QuantizationCandidate, ...] = ()  # of the quantization ladder, in the order in which they were tried
    cleaning: CleaningReport | None = None  # what was left out of the data
    data_notes: tuple[str, ...] = ()  # what was decided about the data without being asked, a sentence each
    diagnosis: Diagnosis = Diagnosis()  # of the served variant: confusions, classes, calibration, residuals
    baseline: Baseline | None = None  # what a language model has to beat


def compare_variants(
    graphs: Mapping[Precision, Path],
    test: Dataset,
    calibration: Dataset,
    budget: float,
    candidates: Sequence[QuantizationCandidate] = (),
    baseline: Baseline | None = None,
) -> QuantizationReport:
    """Measure fp32 and the smaller graph on the test set, and choose which is served: fp32 where no candidate holds."""
    outputs, measured = measure_variants(graphs, test)
    small = get_smaller_variant(graphs)
    full, reduced = measured["fp32"], measured[small]
    lost = METRICS[test.metric].compute_degradation(full.metrics[test.metric], reduced.metrics[test.metric])
    serve, verdict = choose_served_variant(lost, budget, test.metric, candidates, small)
    return QuantizationReport(
        serve=serve,
        verdict=verdict,
        points_lost=lost,
        budget=budget,
        agreement=measure_agreement(outputs["fp32"], outputs[small]),
        max_abs=float(np.abs(outputs["fp32"] - outputs[small]).max()),
        size_ratio=reduced.bytes / full.bytes,
        latency_ratio=reduced.latency_ms / full.latency_ms,
        variants=measured,
        evaluation=EvaluationSet(test.sha256, len(test)),
        calibration=EvaluationSet(calibration.sha256, len(calibration)),
        machine=describe_machine(),
        metric=test.metric,
        rungs=tuple(candidates),
        cleaning=test.cleaning,
        data_notes=test.notes,
        diagnosis=diagnose_answers(outputs[serve], test),
        baseline=baseline,
    )


def get_smaller_variant(variants: Iterable[Precision]) -> Precision:
    """Return the quantized one of the variants."""
    return next(precision for precision in variants if precision != "fp32")


def choose_served_variant(
    points_lost: float,
    budget: float,
    metric: str = "accuracy",
    candidates: Sequence[QuantizationCandidate] = (),
    small: Precision = "int8",
) -> tuple[Precision, str]:
    """Choose the smaller variant within its budget, when a rung held, and fp32 otherwise: the quantization contract."""
    definition = METRICS[metric]
    points, allowed = definition.format_difference(points_lost, metric), f"{budget:.{definition.decimals}f}"
    if candidates and not candidates[-1].holds:
        tried = "; ".join(f"{rung.plan}: {rung.why}" for rung in candidates)
        return "fp32", f"fp32 is served: no way to fewer bits holds. {tried}."
    if points_lost <= budget:
        return small, f"{small} is served: it loses {points}, within the budget of {allowed}."
    return "fp32", f"fp32 is served: {small} loses {points}, more than the budget of {allowed}."


def measure_agreement(fp32: Array, small: Array) -> float:
    """Measure how far a variant repeats fp32's outputs (..., outputs): the share of the same classes, or R2."""
    if fp32.shape[-1] == 1:
        return score_regression(small, fp32).metrics["r2"]
    return float((fp32.argmax(axis=-1) == small.argmax(axis=-1)).mean())


def measure_variants(
    graphs: Mapping[Precision, Path], test: Dataset
) -> tuple[dict[Precision, Array], dict[Precision, VariantMeasurement]]:
    """Run every variant on the test set and measure it; return the outputs and the measurements."""
    sessions = {precision: open_session(str(path)) for precision, path in graphs.items()}
    outputs = {precision: run_graph(session, test.inputs) for precision, session in sessions.items()}
    latencies = measure_latencies(sessions, test.inputs[:1])
    measured = {name: measure_variant(outputs[name], test, graphs[name], latencies[name]) for name in graphs}
    return outputs, measured


def measure_variant(outputs: Array, test: Dataset, graph: Path, latency_ms: float) -> VariantMeasurement:
    """Measure one variant."""
    result = evaluate_outputs(outputs, test)
    accuracy, size = result.metrics.get("accuracy", 0.0), graph.stat().st_size
    return VariantMeasurement(result.loss, result.per_class, size, latency_ms, accuracy, result.metrics)


def measure_latencies(sessions: Mapping[Precision, Session], example: Array) -> dict[Precision, float]:
    """Measure the median time of a single request to each session in ms, in turn: other load slows all alike."""
    seconds: dict[Precision, list[float]] = {precision: [] for precision in sessions}
    for _ in range(LATENCY_ROUNDS):
        for precision, session in sessions.items():
            started = time.perf_counter()
            run_graph(session, example)
            seconds[precision].append(time.perf_counter() - started)
    return {precision: 1000 * median(times) for precision, times in seconds.items()}


def describe_machine() -> str:
    """Describe the machine that measured the latencies."""
    return f"{platform.machine()}, {os.cpu_count()} CPUs, onnxruntime {version('onnxruntime')}"


def build_report_table(report: QuantizationReport) -> RenderableType:
    """Build the report as a table."""
    rows = Table("variant")
    for column in (report.metric, "size", "median latency"):
        rows.add_column(column, justify="right")
    for name, variant in report.variants.items():
        value = format_metric(report.metric, variant.metrics[report.metric])
        rows.add_row(name, value, f"{variant.bytes / 1000:,.1f} kB", f"{variant.latency_ms:.3f} ms")
    rows.add_row(*build_comparison_row(report))
    return Group(
        rows,
        f"{report.evaluation.examples} test examples: {format_agreement(report)}, outputs at most "
        f"{report.max_abs:.3g} apart.",
        *([format_baseline_comparison(report.baseline, report)] if report.baseline else []),
        *(f"{'held' if rung.holds else 'fell'}: {rung.plan}; {rung.why}." for rung in report.rungs),
        f"{LATENCY_ROUNDS} single requests each, in turn, on {report.machine}.",
    )


def build_comparison_row(report: QuantizationReport) -> tuple[str, ...]:
    """Build the table's last row: the smaller variant against fp32."""
    metric = METRICS[report.metric]
    better = -report.points_lost if metric.higher_is_better else report.points_lost
    difference = f"{better + 0.0:+.{metric.decimals}f} {metric.unit}"
    ratios = f"x {report.size_ratio:.3f}", f"x {report.latency_ratio:.2f}"
    return f"{get_smaller_variant(report.variants)} / fp32", difference, *ratios


def load_recorded_baseline(options: Data) -> Baseline | None:
    """Load the baseline that is recorded beside the built-in recipe with the same data; None where there is none."""
    for name, recipe_file in list_builtin_recipes().items():
        file = recipe_file.with_name(f"{name}.baseline.json")
        if file.is_file() and load_recipe(name).data == options:
            return decode_document(file.read_bytes(), Baseline, file.name)
    return None


def format_baseline_comparison(baseline: Baseline, report: QuantizationReport) -> str:
    """Compare a language model with its baseline, on the test set."""
    loss, bits = (report.variants[report.serve].metrics[name] for name in ("loss", "bits_per_byte"))
    return (
        f"{loss:.4f} nats per token and {bits:.4f} bits per byte of {report.serve}; {baseline.test.loss:.4f} and "
        f"{baseline.test.bits_per_byte:.4f} of {baseline.name}."
    )


def format_agreement(report: QuantizationReport) -> str:
    """Format how far the variants' outputs agree."""
    if report.metric == "r2":
        return f"R2 of {get_smaller_variant(report.variants)}'s answers against fp32's {report.agreement:.4f}"
    return f"the same {'class' if report.metric != 'loss' else 'next token'} in {report.agreement:.2%}"
