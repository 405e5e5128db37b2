"""The report: what quantization cost and bought, measured on the same examples and in the same minute.

Metrics, size and latency of both variants, the rungs of the ladder that were tried, and the verdict on which variant is
served. It knows files and arrays, not how they were made; it runs them as the handlers do.
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

from functions.train.data.cleaning import Cleaning
from functions.train.data.dataset import Array, Dataset
from functions.train.evaluation.diagnostics import Diagnosis, diagnose
from functions.train.evaluation.metrics import judge, regression, shown
from functions.train.export.graph import ask
from functions.train.export.quantization_search import Rung
from functions.train.ngram import Baseline
from pilotlight.contracts.manifest import Evaluation, Precision
from pilotlight.contracts.metric import METRICS
from pilotlight.runtime.session import Session, open_session

ROUNDS = 200  # single requests per variant


class Measured(Struct, frozen=True):
    """What was measured of one variant."""

    loss: float  # mean cross-entropy in nats; for a regression, the mean squared error
    per_class: dict[str, float]  # recall, 0 to 1; empty for a regression
    bytes: int
    latency_ms: float  # median of single requests, in the process, as on a Lambda function of one vCPU
    accuracy: float = 0.0  # the same as in `metrics`, for older readers; 0 for a regression
    metrics: dict[str, float] = {}  # by name: accuracy and balanced_accuracy, or r2, rmse and mae


class Report(Struct, frozen=True, kw_only=True):
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
    variants: dict[Precision, Measured]
    evaluation: Evaluation  # on the test set
    calibration: Evaluation  # of the quantizer, a part of the training set
    machine: str
    metric: str = "accuracy"  # what the model is judged by
    rungs: tuple[Rung, ...] = ()  # of the quantization ladder, in the order in which they were tried
    cleaning: Cleaning | None = None  # what was left out of the data
    diagnosis: Diagnosis = Diagnosis()  # of the served variant: confusions, classes, calibration, residuals
    baseline: Baseline | None = None  # what a language model has to beat


def compare(
    graphs: Mapping[Precision, Path],
    test: Dataset,
    calibration: Dataset,
    budget: float,
    rungs: Sequence[Rung] = (),
    baseline: Baseline | None = None,
) -> Report:
    """Measure fp32 and the smaller graph on the test set, and decide which is served; no graph from no rung is."""
    sessions = {precision: open_session(str(path)) for precision, path in graphs.items()}
    outputs = {precision: ask(session, test.inputs) for precision, session in sessions.items()}
    latencies = interleaved(sessions, test.inputs[:1])
    measured = {name: measure(outputs[name], test, graphs[name], latencies[name]) for name in graphs}
    small = smaller(graphs)
    full, less = measured["fp32"], measured[small]
    lost = METRICS[test.metric].lost(full.metrics[test.metric], less.metrics[test.metric])
    serve, verdict = decide(lost, budget, test.metric, rungs, small)
    return Report(
        serve=serve,
        verdict=verdict,
        points_lost=lost,
        budget=budget,
        agreement=agreement(outputs["fp32"], outputs[small]),
        max_abs=float(np.abs(outputs["fp32"] - outputs[small]).max()),
        size_ratio=less.bytes / full.bytes,
        latency_ratio=less.latency_ms / full.latency_ms,
        variants=measured,
        evaluation=Evaluation(test.sha256, len(test)),
        calibration=Evaluation(calibration.sha256, len(calibration)),
        machine=machine(),
        metric=test.metric,
        rungs=tuple(rungs),
        cleaning=test.cleaning,
        diagnosis=diagnose(outputs[serve], test),
        baseline=baseline,
    )


def smaller(variants: Iterable[Precision]) -> Precision:
    """Which of the variants is the quantized one."""
    return next(precision for precision in variants if precision != "fp32")


def decide(
    lost: float, budget: float, metric: str = "accuracy", rungs: Sequence[Rung] = (), small: Precision = "int8"
) -> tuple[Precision, str]:
    """The quantization contract: the smaller variant is served within its budget, when a rung held; fp32 otherwise."""
    known = METRICS[metric]
    points, allowed = known.told(lost, metric), f"{budget:.{known.digits}f}"
    if rungs and not rungs[-1].holds:
        tried = "; ".join(f"{rung.plan}: {rung.why}" for rung in rungs)
        return "fp32", f"fp32 is served: no way to fewer bits holds. {tried}."
    if lost <= budget:
        return small, f"{small} is served: it loses {points}, within the budget of {allowed}."
    return "fp32", f"fp32 is served: {small} loses {points}, more than the budget of {allowed}."


def agreement(fp32: Array, small: Array) -> float:
    """How far a variant gives fp32's answers (..., outputs): the share of the same classes, or R2 of the numbers."""
    if fp32.shape[-1] == 1:
        return regression(small, fp32).metrics["r2"]
    return float((fp32.argmax(axis=-1) == small.argmax(axis=-1)).mean())


def measure(outputs: Array, test: Dataset, graph: Path, latency_ms: float) -> Measured:
    """What there is to say of one variant."""
    result = judge(outputs, test)
    accuracy, size = result.metrics.get("accuracy", 0.0), graph.stat().st_size
    return Measured(result.loss, result.per_class, size, latency_ms, accuracy, result.metrics)


def interleaved(sessions: Mapping[Precision, Session], example: Array) -> dict[Precision, float]:
    """The median time of a single request to each session in ms, taken in turn: a busy neighbour slows all alike."""
    seconds: dict[Precision, list[float]] = {precision: [] for precision in sessions}
    for _ in range(ROUNDS):
        for precision, session in sessions.items():
            started = time.perf_counter()
            ask(session, example)
            seconds[precision].append(time.perf_counter() - started)
    return {precision: 1000 * median(times) for precision, times in seconds.items()}


def machine() -> str:
    """Where the latencies were measured."""
    return f"{platform.machine()}, {os.cpu_count()} CPUs, onnxruntime {version('onnxruntime')}"


def table(report: Report) -> RenderableType:
    """The report for people."""
    rows = Table("variant")
    for column in (report.metric, "size", "median latency"):
        rows.add_column(column, justify="right")
    for name, variant in report.variants.items():
        value = shown(report.metric, variant.metrics[report.metric])
        rows.add_row(name, value, f"{variant.bytes / 1000:,.1f} kB", f"{variant.latency_ms:.3f} ms")
    rows.add_row(*contrast(report))
    return Group(
        rows,
        f"{report.evaluation.examples} test examples: {likeness(report)}, outputs at most {report.max_abs:.3g} apart.",
        *([against(report.baseline, report)] if report.baseline else []),
        *(f"{'held' if rung.holds else 'fell'}: {rung.plan}; {rung.why}." for rung in report.rungs),
        f"{ROUNDS} single requests each, in turn, on {report.machine}.",
    )


def contrast(report: Report) -> tuple[str, ...]:
    """The table's last row: the smaller variant against fp32."""
    metric = METRICS[report.metric]
    better = -report.points_lost if metric.higher_is_better else report.points_lost
    difference = f"{better + 0.0:+.{metric.digits}f} {metric.unit}"
    ratios = f"x {report.size_ratio:.3f}", f"x {report.latency_ratio:.2f}"
    return f"{smaller(report.variants)} / fp32", difference, *ratios


def against(baseline: Baseline, report: Report) -> str:
    """A language model beside its baseline, on the test set."""
    loss, bits = (report.variants[report.serve].metrics[name] for name in ("loss", "bits_per_byte"))
    return (
        f"{loss:.4f} nats per token and {bits:.4f} bits per byte of {report.serve}; {baseline.test.loss:.4f} and "
        f"{baseline.test.bits_per_byte:.4f} of {baseline.name}."
    )


def likeness(report: Report) -> str:
    """How alike the variants' answers are, in words."""
    if report.metric == "r2":
        return f"R2 of {smaller(report.variants)}'s answers against fp32's {report.agreement:.4f}"
    return f"the same {'class' if report.metric != 'loss' else 'next token'} in {report.agreement:.2%}"
