"""The report: what quantization cost and bought, measured on the same examples and in the same minute.

Metrics, size and latency of both variants, the rungs of the ladder that were tried, and the verdict on which variant is
served. It knows files and arrays, not how they were made; it runs them as the handlers do.
"""

import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
from msgspec import Struct
from rich.console import Group, RenderableType
from rich.table import Table

from functions.train.cleaning import Cleaning
from functions.train.data import Array, Dataset
from functions.train.diagnosis import Diagnosis, diagnose
from functions.train.evaluate import regression, score, shown
from functions.train.graph import ask
from functions.train.ladder import Rung
from pilotlight.contracts import Evaluation, Precision
from pilotlight.runtime.session import Session, open_session

ROUNDS = 200  # single requests per variant


class Measured(Struct, frozen=True):
    """What was measured of one variant."""

    loss: float  # mean cross-entropy in nats; of numbers, the mean squared error
    per_class: dict[str, float]  # recall, 0 to 1; empty for numbers
    bytes: int
    latency_ms: float  # median of single requests, in the process, as on a Lambda function of one vCPU
    accuracy: float = 0.0  # as among the metrics, for readers that know no other; of numbers there is none
    metrics: dict[str, float] = {}  # by name: accuracy and balanced_accuracy, or r2, rmse and mae


class Report(Struct, frozen=True, kw_only=True):
    """The measured comparison of the variants of a version: `report.json`."""

    schema_version: int = 1
    serve: Precision
    verdict: str
    points_lost: float  # of the metric by int8, in percentage points; negative when it gained
    budget: float  # percentage points
    agreement: float  # share of examples to which both give the same class; of numbers, R2 of int8's against fp32's
    max_abs: float  # the largest |difference| of an output
    size_ratio: float  # int8 / fp32
    latency_ratio: float  # int8 / fp32
    variants: dict[Precision, Measured]
    evaluation: Evaluation  # on the test set
    calibration: Evaluation  # of the quantizer, a part of the training set
    machine: str
    metric: str = "accuracy"  # what the model is judged by
    rungs: tuple[Rung, ...] = ()  # of the quantization ladder, in the order in which they were tried
    cleaning: Cleaning | None = None  # what was left out of the data
    diagnosis: Diagnosis = Diagnosis()  # of the served variant: confusions, classes, calibration, residuals


def compare(
    graphs: Mapping[Precision, Path],
    test: Dataset,
    calibration: Dataset,
    budget: float,
    rungs: Sequence[Rung] = (),
) -> Report:
    """Measure the fp32 and the int8 graph on the test set, and decide which is served; no graph from no rung is."""
    sessions = {precision: open_session(str(path)) for precision, path in graphs.items()}
    outputs = {precision: ask(session, test.inputs) for precision, session in sessions.items()}
    latencies = interleaved(sessions, test.inputs[:1])
    measured = {name: measure(outputs[name], test, graphs[name], latencies[name]) for name in graphs}
    fp32, int8 = measured["fp32"], measured["int8"]
    lost = round(100 * (fp32.metrics[test.metric] - int8.metrics[test.metric]), 6)  # rounded: 0.5 lost is within 0.5
    serve, verdict = decide(lost, budget, test.metric, rungs)
    return Report(
        serve=serve,
        verdict=verdict,
        points_lost=lost,
        budget=budget,
        agreement=agreement(outputs["fp32"], outputs["int8"]),
        max_abs=float(np.abs(outputs["fp32"] - outputs["int8"]).max()),
        size_ratio=int8.bytes / fp32.bytes,
        latency_ratio=int8.latency_ms / fp32.latency_ms,
        variants=measured,
        evaluation=Evaluation(test.sha256, len(test)),
        calibration=Evaluation(calibration.sha256, len(calibration)),
        machine=machine(),
        metric=test.metric,
        rungs=tuple(rungs),
        cleaning=test.cleaning,
        diagnosis=diagnose(outputs[serve], test),
    )


def decide(lost: float, budget: float, metric: str = "accuracy", rungs: Sequence[Rung] = ()) -> tuple[Precision, str]:
    """The quantization contract: int8 is served within its budget, when a rung held; fp32 otherwise."""
    points = f"{lost:.2f} points of {metric}"
    if rungs and not rungs[-1].holds:
        tried = "; ".join(f"{rung.plan}: {rung.why}" for rung in rungs)
        return "fp32", f"fp32 is served: no way to 8 bits holds. {tried}."
    if lost <= budget:
        return "int8", f"int8 is served: it loses {points}, within the budget of {budget:.2f}."
    return "fp32", f"fp32 is served: int8 loses {points}, more than the budget of {budget:.2f}."


def agreement(fp32: Array, int8: Array) -> float:
    """How far int8 gives fp32's answers (N, outputs): the share of the same classes, or R2 of the numbers."""
    if fp32.shape[1] == 1:
        return regression(int8, fp32).metrics["r2"]
    return float((fp32.argmax(axis=1) == int8.argmax(axis=1)).mean())


def measure(outputs: Array, test: Dataset, graph: Path, latency_ms: float) -> Measured:
    """What there is to say of one variant."""
    result = score(outputs, test.targets, test.classes)
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
    ratios = f"{0 - report.points_lost:+.2f} points", f"x {report.size_ratio:.3f}", f"x {report.latency_ratio:.2f}"
    rows.add_row("int8 / fp32", *ratios)
    return Group(
        rows,
        f"{report.evaluation.examples} test examples: {likeness(report)}, outputs at most {report.max_abs:.3g} apart.",
        *(f"{'held' if rung.holds else 'fell'}: {rung.plan}; {rung.why}." for rung in report.rungs),
        f"{ROUNDS} single requests each, in turn, on {report.machine}.",
    )


def likeness(report: Report) -> str:
    """How alike the variants' answers are, in words."""
    if report.metric == "r2":
        return f"R2 of int8's answers against fp32's {report.agreement:.4f}"
    return f"the same class in {report.agreement:.2%}"
