"""Make the quantized variants, choose the served one, and write the report: the only module here to use the ladder.

With right answers the ladder uses one half of the examples and the report the other (decision 0007); without them, what
is known is how far the answers of both variants agree. Nothing here fails a publish: what cannot be quantized is served
as it is, and the report says why (decision 0072).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from functions.train.convert.compared_examples import ComparedExamples, MeasuredVariants, make_up_requests
from functions.train.convert.evaluation_data import ExampleSet, find_rows_without_numbers
from functions.train.convert.progress_lines import show_line, show_work
from functions.train.convert.published_search import PublishedSearch, build_quality, open_variants
from functions.train.convert.quantizer_process import QuantizerProcess
from functions.train.convert.right_answers import RightAnswers, Unjudged, interpret_answers
from functions.train.errors import QuantizationError
from functions.train.evaluation.score import Score
from functions.train.evaluation.variant_choice import weigh_named_variant, weigh_variant
from functions.train.evaluation.variant_report import (
    VariantMeasurement,
    VariantReport,
    compute_gain,
    describe_machine,
    summarize_variants,
)
from functions.train.evaluation.variant_timing import measure_request_times
from functions.train.export.candidate_search import QuantizationCandidate, select_best_candidate
from functions.train.export.quantizable_graph import (
    find_quantized_operators,
    get_quantized_precision,
    load_quantizable_graph,
)
from pilotlight.contracts.codec import encode_document
from pilotlight.contracts.manifest import EvaluationSet, Precision
from pilotlight.contracts.metric import METRICS
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.example_batches import generate_answers
from pilotlight.runtime.golden_recorder import Feeds
from pilotlight.runtime.scored_output import choose_scored_output
from pilotlight.runtime.session import open_session

EVALUATED = "evaluation examples"
MIN_HALVED = 32  # examples without answers, from which one half calibrates and the other compares
SHOWN_OPERATORS = 3  # of a graph that is quantized already


@dataclass(frozen=True, kw_only=True)
class VariantChoice:
    """The variants of a version, the one that is served, and why."""

    graphs: dict[Precision, Path]
    serve: Precision
    verdict: str
    report: bytes
    metrics: dict[Precision, dict[str, float]]
    metric: str | None = None
    budget: float | None = None  # for what the smaller variant may lose of the metric, in its unit
    test: ExampleSet | None = None  # what the metrics were measured on


@dataclass(frozen=True)
class QuantizationSource:
    """A graph in fp32, and the data to make and evaluate its smaller variants."""

    graph: Path
    feeds: tuple[Feeds, ...]
    labels: tuple[str, ...] = ()
    evaluation: ExampleSet | None = None
    calibration: ExampleSet | None = None
    show: Callable[[str], None] = show_line

    def interpret_evaluation(self, file: str = "--evaluation") -> RightAnswers | None:
        """Interpret the right answers, and show why if they are not used; `InvalidInputError` if they are wrong."""
        examples = self.evaluation
        if examples is None or examples.targets is None:
            return None
        if layout := examples.layout.description:
            self.show(f"The graph takes the examples {layout}.")
        session = open_session(str(self.graph))
        output = choose_scored_output(session)
        found: RightAnswers | Unjudged = Unjudged(f"{output!r} cannot be divided by example")
        if examples.layout.outputs.get(output) is not None:
            some = examples.take(slice(0, 2)).inputs
            sample = next(generate_answers(session, some, examples.layout, [output]))[output]
            found = interpret_answers(file, examples.targets, sample, self.labels)
        if isinstance(found, Unjudged):
            self.show(f"The right answers are not used: {found.reason}; how far the variants agree is measured.")
            return None
        return found

    def collect_examples(self, answers: RightAnswers | None) -> ComparedExamples:
        """Collect what the variants are compared on: the best evidence that there is."""
        if self.evaluation is not None:
            return ComparedExamples(EVALUATED, self.evaluation, answers=answers)
        if self.calibration is not None:
            return ComparedExamples("calibration examples", self.calibration)
        session = open_session(str(self.graph))
        return ComparedExamples("examples, made up or of its origin", feeds=make_up_requests(session, self.feeds))


def choose_variants(source: QuantizationSource, requested_precision: str) -> VariantChoice:
    """Make the requested variant, auto, int8, int4 or none, and choose what is served.

    Raises `InvalidInputError` if a variant that was asked for by name would save nothing.
    """
    answers = source.interpret_evaluation()
    if operators := find_quantized_operators(source.graph):
        return serve_quantized_graph(source, answers, operators)
    compared = source.collect_examples(answers) if requested_precision != "none" or source.evaluation else None
    if requested_precision == "none" or compared is None:
        return build_single_choice(source, compared, "fp32 is served, as it was given.")
    precision: Precision = "int4" if requested_precision == "int4" else "int8"
    is_named = requested_precision != "auto"
    if reason := find_reason_against(source, precision, is_named=is_named):
        return build_single_choice(source, compared, f"fp32 is served: {reason}.")
    return search_variants(source, compared, precision, is_named=is_named)


def find_reason_against(source: QuantizationSource, precision: Precision, *, is_named: bool) -> str:
    """Return why nothing is quantized: a clause; empty if it is tried."""
    if not is_named and source.evaluation is not None and len(rows := find_rows_without_numbers(source.evaluation)):
        return f"{len(rows):,} of {len(source.evaluation):,} examples have NaN or infinity, which only fp32 takes"
    try:
        load_quantizable_graph(source.graph.absolute())
    except QuantizationError as exc:
        if is_named and "has no weights" in str(exc):
            raise InvalidInputError(f"{precision} saves nothing: {exc}; publish it without --quantize.") from exc
        return f"{precision} cannot be made, since {exc}"
    return ""


def serve_quantized_graph(
    source: QuantizationSource, answers: RightAnswers | None, operators: tuple[str, ...]
) -> VariantChoice:
    """Serve a graph as it is that is quantized already."""
    precision = get_quantized_precision(operators)
    graph = source.graph.rename(source.graph.with_name(f"model.{precision}.onnx"))
    listed = ", ".join(operators[:SHOWN_OPERATORS]) + (" and others" if len(operators) > SHOWN_OPERATORS else "")
    verdict = f"{precision} is served as it is: the graph is quantized already ({listed})."
    source.show(verdict)
    compared = ComparedExamples(EVALUATED, source.evaluation, answers=answers) if source.evaluation else None
    return build_choice(source, measure_outcome({precision: graph}, source, compared), precision, verdict)


def search_variants(
    source: QuantizationSource, compared: ComparedExamples, precision: Precision, *, is_named: bool
) -> VariantChoice:
    """Search on one half of the examples, measure what was found on the other, and weigh it."""
    searched, tested = divide_examples(compared)
    small = source.graph.with_name(f"model.{precision}.onnx")
    calibration = collect_calibration(source, searched)
    with show_work(f"Quantizing to {precision}"), QuantizerProcess(source.graph, calibration) as process:
        search = PublishedSearch(
            source.graph, calibration, searched, precision, show=source.show, quantize=process.quantize
        )
        candidates = search.search(small)
    if select_best_candidate(candidates) is None:
        return build_single_choice(source, tested, describe_fallen(precision, candidates), candidates)
    sizes = [small.stat().st_size, source.graph.stat().st_size]
    if sizes[0] >= sizes[1]:
        reason = f"{precision} takes {sizes[0]:,} bytes, no fewer than the {sizes[1]:,} of fp32"
        if is_named:
            raise InvalidInputError(f"{reason}; publish it without --quantize.")
        small.unlink()
        return build_single_choice(source, tested, f"fp32 is served: {reason}.", candidates)
    outcome = measure_outcome({"fp32": source.graph, precision: small}, source, tested, candidates)
    gain = compute_gain(outcome.variants["fp32"], outcome.variants[precision])
    weigh = weigh_named_variant if is_named else weigh_variant
    serve, verdict = weigh(precision, gain, build_quality(tested, outcome.measured, precision))
    source.show(verdict)
    return build_choice(source, outcome, serve, verdict)


def describe_fallen(precision: Precision, candidates: tuple[QuantizationCandidate, ...]) -> str:
    """Describe why no candidate was written."""
    reasons = "; ".join(f"{one.plan}: {one.why}" for one in candidates)
    return f"fp32 is served: {precision} cannot be made. {reasons}."


def divide_examples(compared: ComparedExamples) -> tuple[ComparedExamples, ComparedExamples]:
    """Divide examples into those of the search and those of the report; the same for both if they are few."""
    few = 2 if compared.answers is not None else MIN_HALVED
    if compared.examples is None or len(compared) < few:
        return compared, compared
    return compared.take(slice(0, None, 2)), compared.take(slice(1, None, 2))


def collect_calibration(source: QuantizationSource, searched: ComparedExamples) -> tuple[Feeds, ...]:
    """Collect the requests that ranges are calibrated on: the given ones, else those of the search; none made up."""
    examples = searched.examples
    if source.calibration is not None:
        examples = source.calibration if source.evaluation is not None else searched.examples
    if examples is None:
        return ()
    usable = np.setdiff1d(np.arange(len(examples)), find_rows_without_numbers(examples))
    chosen = examples.take(usable) if len(usable) else examples
    return tuple(feed for feed, _ in chosen.layout.generate_feeds(chosen.inputs)) if len(usable) else ()


def build_single_choice(
    source: QuantizationSource,
    compared: ComparedExamples | None,
    verdict: str,
    candidates: tuple[QuantizationCandidate, ...] = (),
) -> VariantChoice:
    """Build the choice of fp32 alone."""
    if not verdict.endswith("as it was given."):
        source.show(verdict)
    return build_choice(source, measure_outcome({"fp32": source.graph}, source, compared, candidates), "fp32", verdict)


@dataclass(frozen=True)
class MeasuredOutcome:
    """What was made of a graph, and everything that was measured of it."""

    graphs: dict[Precision, Path]
    variants: dict[Precision, VariantMeasurement]
    measured: MeasuredVariants
    compared: ComparedExamples | None
    candidates: tuple[QuantizationCandidate, ...] = ()


def measure_outcome(
    graphs: dict[Precision, Path],
    source: QuantizationSource,
    compared: ComparedExamples | None,
    candidates: tuple[QuantizationCandidate, ...] = (),
) -> MeasuredOutcome:
    """Measure the sizes, times, scores and agreement of variants."""
    sessions, measured = open_variants(graphs), MeasuredVariants((), {})
    if compared is not None and (len(graphs) > 1 or compared.answers is not None):
        measured = compared.compare(sessions)
    feed = compared.build_single_request() if compared else next(iter(source.feeds), None)
    times = measure_request_times(sessions, feed) if feed is not None else {}
    variants = {
        name: build_measurement(path, times.get(name, 0.0), measured.scores.get(name)) for name, path in graphs.items()
    }
    return MeasuredOutcome(graphs, variants, measured, compared, candidates)


def build_measurement(graph: Path, latency_ms: float, score: Score | None) -> VariantMeasurement:
    """Build the measurements of one variant."""
    size = graph.stat().st_size
    if score is None:
        return VariantMeasurement(0.0, {}, size, latency_ms)
    accuracy = score.metrics.get("accuracy", 0.0)
    return VariantMeasurement(score.loss, score.per_class, size, latency_ms, accuracy, score.metrics)


def build_choice(source: QuantizationSource, outcome: MeasuredOutcome, serve: Precision, verdict: str) -> VariantChoice:
    """Build the choice with its report."""
    compared, names = outcome.compared, list(outcome.graphs)
    small = names[1] if len(names) > 1 else None
    answers = compared.answers if compared else None
    quality = build_quality(compared, outcome.measured, small) if compared and small else None
    test = describe_test(compared) if compared else None
    report = VariantReport(
        serve=serve,
        verdict=verdict,
        metric=answers.metric if answers else None,
        points_lost=quality.loss.amount if quality and quality.loss else None,
        budget=METRICS[answers.metric].default_budget if answers else None,
        evaluation=EvaluationSet(test.sha256, len(test)) if test else None,
        calibration=describe_calibration(source, outcome),
        rungs=outcome.candidates,
        compared=compared.source if compared else "",
        requests=len(compared) if compared and small else 0,
        **summarize_variants(outcome.variants, small, describe_machine(), outcome.measured.agreements),
    )
    metrics = {name: list_metrics(one) for name, one in outcome.variants.items() if one.metrics}
    return VariantChoice(
        graphs=outcome.graphs,
        serve=serve,
        verdict=verdict,
        report=encode_document(report),
        metrics=metrics,
        metric=report.metric,
        budget=report.budget,
        test=test if answers else None,
    )


def list_metrics(measurement: VariantMeasurement) -> dict[str, float]:
    """List the metrics of a variant for the manifest."""
    return {**measurement.metrics, "loss": measurement.loss, "latency_ms": measurement.latency_ms}


def describe_test(compared: ComparedExamples) -> ExampleSet | None:
    """Return the examples that were measured on, with the right answers as they were understood."""
    if compared.examples is None or compared.source != EVALUATED:
        return None
    answers = compared.answers
    return replace(compared.examples, targets=answers.values) if answers else compared.examples


def describe_calibration(source: QuantizationSource, outcome: MeasuredOutcome) -> EvaluationSet | None:
    """Describe the examples that were given for the calibration."""
    examples = source.calibration
    return EvaluationSet(examples.sha256, len(examples)) if examples and outcome.candidates else None
