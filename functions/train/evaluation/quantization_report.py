"""The report: what quantization cost and gained, measured on the same examples and in the same minute.

It has the metrics, size and latency of both variants, the candidates of the search, and the verdict on which variant is
served. The graphs are run as the handlers run them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from msgspec import Struct
from rich.console import Group, RenderableType
from rich.table import Table

from functions.train.data import Array
from functions.train.data.cleaning import CleaningReport
from functions.train.data.dataset import Dataset
from functions.train.evaluation.agreement import OutputAgreement
from functions.train.evaluation.diagnostics import Diagnosis, DiagnosisTotals
from functions.train.evaluation.graphs import split_examples
from functions.train.evaluation.score import Score
from functions.train.evaluation.totals import RegressionTotals, Totals, build_totals
from functions.train.evaluation.variant_choice import Loss, Quality, weigh_named_variant
from functions.train.evaluation.variant_report import (
    VariantMeasurement,
    VariantReport,
    compute_gain,
    describe_machine,
    summarize_variants,
)
from functions.train.evaluation.variant_timing import ROUNDS, measure_request_times
from functions.train.export.candidate_search import QuantizationCandidate
from functions.train.export.quantize import run_graph
from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import EvaluationSet, Precision
from pilotlight.contracts.metric import METRICS, format_value
from pilotlight.recipes.data_schema import Data
from pilotlight.recipes.schema import list_builtin_recipes, load_recipe
from pilotlight.runtime.session import open_session


class BaselineScore(Struct, frozen=True):
    """The score of the baseline on one set."""

    loss: float  # nats per token
    bits_per_byte: float


class Baseline(Struct, frozen=True):
    """What a language model has to beat: an n-gram model on the same tokens."""

    name: str
    validation: BaselineScore
    test: BaselineScore


class QuantizationReport(VariantReport, frozen=True, kw_only=True):
    """The report of a model that was trained here, with what is known of its data."""

    points_lost: float  # negative: gained
    budget: float
    evaluation: EvaluationSet  # on the test set
    calibration: EvaluationSet  # a part of the training set
    metric: str = "accuracy"
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
    small = get_smaller_variant(graphs)
    measured, comparison = measure_variants(graphs, test)
    full, reduced = measured["fp32"], measured[small]
    lost = METRICS[test.metric].compute_degradation(full.metrics[test.metric], reduced.metrics[test.metric])
    serve, verdict = choose_served_variant(lost, budget, test.metric, candidates, small)
    agreement = comparison.agreement.compute()
    if serve != "fp32":
        quality = build_quality(agreement, test, Loss(test.metric, lost, budget))
        serve, verdict = weigh_named_variant(small, compute_gain(full, reduced), quality)  # the recipe names it
    summary = summarize_variants(measured, small, describe_machine())
    return QuantizationReport(
        **(summary | {"max_abs": comparison.agreement.max_abs, "agreement": agreement}),
        serve=serve,
        verdict=verdict,
        points_lost=lost,
        budget=budget,
        evaluation=EvaluationSet(test.sha256, len(test)),
        calibration=EvaluationSet(calibration.sha256, len(calibration)),
        metric=test.metric,
        compared="test examples",
        requests=len(test),
        rungs=tuple(candidates),
        cleaning=test.cleaning,
        data_notes=test.notes,
        diagnosis=comparison.diagnoses[serve].diagnose(),
        baseline=baseline,
    )


def build_quality(agreement: float, test: Dataset, loss: Loss) -> Quality:
    """Build how good a variant's answers are; of numbers, the agreement is an R2 and tells of no classes."""
    classes = [OutputAgreement("answers", same=agreement, places=test.target_count)] if test.classes else []
    return Quality(classes, len(test), "test examples", loss)


def get_smaller_variant(variants: Iterable[Precision]) -> Precision:
    """Return the quantized one of the variants; fp32 if it is the only one, since no way to fewer bits worked."""
    return next((precision for precision in variants if precision != "fp32"), "fp32")


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


class AgreementTotals:
    """How far a variant repeats fp32's outputs (..., outputs), batch by batch: the share of the same classes, or R2."""

    def __init__(self) -> None:
        self.max_abs = 0.0
        self._same = self._count = 0
        self._numbers: RegressionTotals | None = None

    def add(self, fp32: Array, small: Array) -> None:
        """Add a batch of both."""
        self.max_abs = float(np.maximum(self.max_abs, np.abs(fp32 - small).max()))  # which keeps NaN
        if fp32.shape[-1] == 1:
            self._numbers = self._numbers or RegressionTotals(origin=float(fp32.mean(dtype=np.float64)))
            self._numbers.add(torch.from_numpy(small), torch.from_numpy(fp32))
            return
        same = fp32.argmax(axis=-1) == small.argmax(axis=-1)
        self._same, self._count = self._same + int(same.sum()), self._count + same.size

    def compute(self) -> float:
        """Compute the agreement over what was added; of numbers that are all alike, whether they are repeated."""
        if self._numbers is None:
            return self._same / self._count
        return self._numbers.score().metrics.get("r2", float(self.max_abs == 0))


@dataclass(frozen=True)
class VariantComparison:
    """What is accumulated over the test set while the variants run side by side; no outputs are kept."""

    agreement: AgreementTotals
    diagnoses: dict[Precision, DiagnosisTotals]
    totals: dict[Precision, Totals]

    def add(self, outputs: Mapping[Precision, Array], targets: Array) -> None:
        """Add a batch of every variant's outputs."""
        self.agreement.add(outputs["fp32"], outputs[get_smaller_variant(outputs)])
        for precision, answers in outputs.items():
            self.diagnoses[precision].add(answers, targets)
            self.totals[precision].add(torch.from_numpy(answers), torch.from_numpy(targets))


def measure_variants(
    graphs: Mapping[Precision, Path], test: Dataset
) -> tuple[dict[Precision, VariantMeasurement], VariantComparison]:
    """Run every variant on the test set, a batch at a time, and measure it; return what was measured."""
    sessions = {precision: open_session(str(path)) for precision, path in graphs.items()}
    comparison = VariantComparison(
        AgreementTotals(),
        {name: DiagnosisTotals(test) for name in graphs},
        {name: build_totals(test) for name in graphs},
    )
    for rows in split_examples(test.inputs):
        outputs = {precision: run_graph(session, test.inputs[rows]) for precision, session in sessions.items()}
        comparison.add(outputs, test.targets[rows])
    first = next(iter(sessions.values())).inputs[0].name
    latencies = measure_request_times(sessions, {first: test.inputs[:1]})
    scores = {name: totals.score() for name, totals in comparison.totals.items()}
    return {name: measure_variant(scores[name], graphs[name], latencies[name]) for name in graphs}, comparison


def measure_variant(result: Score, graph: Path, latency_ms: float) -> VariantMeasurement:
    """Measure one variant."""
    accuracy, size = result.metrics.get("accuracy", 0.0), graph.stat().st_size
    return VariantMeasurement(result.loss, result.per_class, size, latency_ms, accuracy, result.metrics)


def build_report_table(report: QuantizationReport) -> RenderableType:
    """Build the report as a table."""
    rows = Table("variant")
    for column in (report.metric, "size", "median latency"):
        rows.add_column(column, justify="right")
    for name, variant in report.variants.items():
        value = format_value(report.metric, variant.metrics[report.metric])
        rows.add_row(name, value, f"{variant.bytes / 1000:,.1f} kB", f"{variant.latency_ms:.3f} ms")
    rows.add_row(*build_comparison_row(report))
    return Group(
        rows,
        f"{report.evaluation.examples} test examples: {format_agreement(report)}, outputs at most "
        f"{report.max_abs:.3g} apart.",
        *([format_baseline_comparison(report.baseline, report)] if report.baseline else []),
        *(f"{'held' if rung.holds else 'fell'}: {rung.plan}; {rung.why}." for rung in report.rungs),
        f"{ROUNDS} single requests each, in turn, on {report.machine}.",
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
    if not report.variants["fp32"].per_class and "r2" in report.variants["fp32"].metrics:
        return f"R2 of {get_smaller_variant(report.variants)}'s answers against fp32's {report.agreement:.4f}"
    return f"the same {'class' if report.metric != 'loss' else 'next token'} in {report.agreement:.2%}"
