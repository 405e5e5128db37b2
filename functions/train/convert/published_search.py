"""The search for a smaller variant of a graph that was brought in: what to try, and what each try saves and costs."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from functions.train.convert.compared_examples import ComparedExamples, MeasuredVariants
from functions.train.convert.data_free_quantization import is_large_table_lookup
from functions.train.evaluation.variant_choice import Gain, Loss, Quality, weigh_variant
from functions.train.evaluation.variant_timing import measure_request_times
from functions.train.export.candidate_search import CandidateSearch, QuantizationCandidate, build_failed_candidate
from functions.train.export.quantizable_graph import CHANNEL_OPSET, get_opset, load_quantizable_graph
from functions.train.export.quantize import QuantizationPlan
from pilotlight.contracts.manifest import Precision
from pilotlight.contracts.metric import METRICS
from pilotlight.runtime.session import Session, open_session

MAX_SECONDS = 240.0  # for all candidates; what has not begun by then is told as left out
CANDIDATE_TIMING_SECONDS = 0.5  # of requests to each candidate


@dataclass(frozen=True)
class PublishedSearch(CandidateSearch):
    """Tries to quantize a graph, with the examples that were given, or without any."""

    compared: ComparedExamples
    precision: Precision
    show: Callable[[str], None] = print
    started: float = field(default_factory=time.monotonic)

    def generate_plans(self) -> Iterator[tuple[QuantizationPlan, dict[str, float]]]:
        """Generate plans in order: of 4 bits one; of 8 bits those that suit the graph, then sparing layers."""
        if self.precision == "int4":
            yield QuantizationPlan("weight-only"), {}
            return
        model = load_quantizable_graph(self.graph.absolute())
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        has_tables = any(
            node.op_type == "Gather" and is_large_table_lookup(node, constants) for node in model.graph.node
        )
        last = QuantizationPlan("data-free")
        if self.calibration and any(node.op_type == "Conv" for node in model.graph.node):
            last = QuantizationPlan("static")
            yield last, {}
            if get_opset(model) < CHANNEL_OPSET:
                yield QuantizationPlan("static", per_channel=False), {}
        elif self.calibration and not has_tables:
            yield QuantizationPlan("dynamic", per_channel=False), {}
            last = QuantizationPlan("dynamic")
            yield last, {}
        yield QuantizationPlan("data-free"), {}
        if self.compared.answers is not None and last.scheme != "data-free":
            yield from self.generate_sparing_plans(last)

    def list_layers(self) -> tuple[str, ...]:
        """List the layers that can be spared; none if there is no time to quantize each of them alone."""
        layers, elapsed = super().list_layers(), time.monotonic() - self.started
        return layers if elapsed * (1 + len(layers) / 4) < MAX_SECONDS else ()

    def try_plan(self, plan: QuantizationPlan, spared: dict[str, float], path: Path) -> QuantizationCandidate:
        """Try a plan while there is time, and show what became of it."""
        if time.monotonic() - self.started > MAX_SECONDS:
            return build_failed_candidate(plan, f"it was not tried, since the {MAX_SECONDS:.0f} s were over", spared)
        candidate = super().try_plan(plan, spared, path)
        self.show(f"{candidate.precision}, {candidate.plan}: {'fits' if candidate.holds else 'fell'}; {candidate.why}.")
        return candidate

    def evaluate_candidate(self, plan: QuantizationPlan, spared: dict[str, float], path: Path) -> QuantizationCandidate:
        """Evaluate what a variant saves and costs."""
        sessions = open_variants({"fp32": self.graph, plan.precision: path})
        quality = build_quality(self.compared, self.compared.compare(sessions), plan.precision)
        gain = measure_gain(sessions, {"fp32": self.graph, plan.precision: path}, self.compared)
        serve, _ = weigh_variant(plan.precision, gain, quality)
        worst = min((one.same for one in quality.agreements), default=1.0)
        return QuantizationCandidate(
            str(plan),
            quality.loss.amount if quality.loss else 100 * (1 - worst),
            path.stat().st_size,
            serve == plan.precision,
            f"it takes {gain}; {quality}",
            spared,
            plan.precision,
            size_ratio=gain.size_ratio,
            latency_ratio=gain.latency_ratio,
            agreement=worst,
        )


def open_variants(graphs: dict[Precision, Path]) -> dict[Precision, Session]:
    """Open the graphs of all variants."""
    return {name: open_session(str(path)) for name, path in graphs.items()}


def build_quality(compared: ComparedExamples, measured: MeasuredVariants, small: Precision) -> Quality:
    """Build how good a variant's answers are."""
    loss = None
    if compared.answers is not None:
        metric = compared.answers.metric
        before, after = (measured.scores[name].metrics[metric] for name in ("fp32", small))
        definition = METRICS[metric]
        loss = Loss(metric, definition.compute_degradation(before, after), definition.default_budget)
    return Quality(measured.agreements, len(compared), compared.source, loss)


def measure_gain(sessions: dict[Precision, Session], graphs: dict[Precision, Path], compared: ComparedExamples) -> Gain:
    """Measure what the second of two variants saves in bytes and time; without a request, both take as long."""
    (full, small), times = graphs, dict.fromkeys(graphs, 1.0)
    if len(compared):
        times = measure_request_times(sessions, compared.build_single_request(), CANDIDATE_TIMING_SECONDS)
    size = graphs[small].stat().st_size / graphs[full].stat().st_size
    return Gain(size, times[small] / times[full], times[small] - times[full])
