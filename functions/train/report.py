"""The report: what quantization cost and bought, measured on the same examples and in the same minute.

Accuracy, size and latency of both variants, and the verdict on which of them is served. It knows files and arrays, not
how they were made; it runs them as the handlers do.
"""

import os
import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
from msgspec import Struct
from rich.console import Group, RenderableType
from rich.table import Table

from functions.train.data import Array, Dataset
from functions.train.evaluate import score
from functions.train.export import INPUT, OUTPUT
from pilotlight.contracts import Evaluation, Precision
from pilotlight.runtime.session import Session, open_session

ROUNDS = 200  # single requests per variant


class Measured(Struct, frozen=True):
    """What was measured of one variant."""

    accuracy: float  # 0 to 1
    loss: float  # mean cross-entropy in nats
    per_class: dict[str, float]  # recall, 0 to 1
    bytes: int
    latency_ms: float  # median of single requests, in the process, as on a Lambda function of one vCPU


class Report(Struct, frozen=True, kw_only=True):
    """The measured comparison of the variants of a version: `report.json`."""

    schema_version: int = 1
    serve: Precision
    verdict: str
    points_lost: float  # of accuracy by int8, in percentage points; negative when it gained
    budget: float  # percentage points
    agreement: float  # share of examples to which both give the same class
    max_abs: float  # the largest |difference| of a logit
    size_ratio: float  # int8 / fp32
    latency_ratio: float  # int8 / fp32
    variants: dict[Precision, Measured]
    evaluation: Evaluation  # on the test set
    calibration: Evaluation  # of the quantizer, a part of the training set
    machine: str


def compare(graphs: Mapping[Precision, Path], test: Dataset, calibration: Dataset, budget: float) -> Report:
    """Measure the fp32 and the int8 graph on the test set, and decide which is served."""
    sessions = {precision: open_session(str(path)) for precision, path in graphs.items()}
    logits = {precision: session.run({INPUT: test.inputs})[OUTPUT] for precision, session in sessions.items()}
    latencies = interleaved(sessions, test.inputs[:1])
    measured = {name: measure(logits[name], test, graphs[name], latencies[name]) for name in graphs}
    fp32, int8 = measured["fp32"], measured["int8"]
    lost = round(100 * (fp32.accuracy - int8.accuracy), 6)  # rounded: 0.5 lost is within 0.5
    serve, verdict = decide(lost, budget)
    return Report(
        serve=serve,
        verdict=verdict,
        points_lost=lost,
        budget=budget,
        agreement=float((logits["fp32"].argmax(axis=1) == logits["int8"].argmax(axis=1)).mean()),
        max_abs=float(np.abs(logits["fp32"] - logits["int8"]).max()),
        size_ratio=int8.bytes / fp32.bytes,
        latency_ratio=int8.latency_ms / fp32.latency_ms,
        variants=measured,
        evaluation=Evaluation(test.sha256, len(test)),
        calibration=Evaluation(calibration.sha256, len(calibration)),
        machine=machine(),
    )


def decide(lost: float, budget: float) -> tuple[Precision, str]:
    """The quantization contract: int8 is served within its budget and fp32 beyond it."""
    if lost <= budget:
        return "int8", f"int8 is served: it loses {lost:.2f} points of accuracy, within the budget of {budget:.2f}."
    return "fp32", f"fp32 is served: int8 loses {lost:.2f} points of accuracy, more than the budget of {budget:.2f}."


def measure(logits: Array, test: Dataset, graph: Path, latency_ms: float) -> Measured:
    """What there is to say of one variant."""
    result = score(logits, test.targets, test.classes)
    return Measured(result.accuracy, result.loss, result.per_class, graph.stat().st_size, latency_ms)


def interleaved(sessions: Mapping[Precision, Session], image: Array) -> dict[Precision, float]:
    """The median time of a single request to each session in ms, taken in turn: a busy neighbour slows all alike."""
    seconds: dict[Precision, list[float]] = {precision: [] for precision in sessions}
    for _ in range(ROUNDS):
        for precision, session in sessions.items():
            started = time.perf_counter()
            session.run({INPUT: image})
            seconds[precision].append(time.perf_counter() - started)
    return {precision: 1000 * median(times) for precision, times in seconds.items()}


def machine() -> str:
    """Where the latencies were measured."""
    return f"{platform.machine()}, {os.cpu_count()} CPUs, onnxruntime {version('onnxruntime')}"


def table(report: Report) -> RenderableType:
    """The report for people."""
    shown = Table("variant")
    for column in ("accuracy", "size", "median latency"):
        shown.add_column(column, justify="right")
    for name, variant in report.variants.items():
        cells = f"{variant.accuracy:.2%}", f"{variant.bytes / 1000:,.1f} kB", f"{variant.latency_ms:.3f} ms"
        shown.add_row(name, *cells)
    ratios = f"{0 - report.points_lost:+.2f} points", f"x {report.size_ratio:.3f}", f"x {report.latency_ratio:.2f}"
    shown.add_row("int8 / fp32", *ratios)
    return Group(
        shown,
        f"{report.evaluation.examples} test examples: the same class in {report.agreement:.2%}, "
        f"logits at most {report.max_abs:.3f} apart.",
        f"{ROUNDS} single requests each, in turn, on {report.machine}.",
    )
