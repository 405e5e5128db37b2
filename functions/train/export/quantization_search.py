"""The search for a way to fewer bits, from the cheapest to the most careful, until a candidate is good enough.

Each candidate is evaluated on the validation set; the test set, on which the report measures the chosen one, has no
influence on the choice.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct
from onnxruntime.quantization.qdq_loss_debug import compute_signal_to_quantization_noice_ratio as signal_to_noise

from functions.train.data.dataset import Dataset
from functions.train.data.pixels import Inputs
from functions.train.evaluation.metrics import evaluate_outputs
from functions.train.export.quantize import QuantizationPlan, list_quantizable_layers, quantize_graph, run_graph
from pilotlight.contracts.manifest import Precision
from pilotlight.contracts.metric import METRICS
from pilotlight.recipes.schema import QuantizationOptions
from pilotlight.runtime.session import open_session

# Static starts per channel: at no cost in time on any CPU measured, while dynamic pays some bytes and time for it.
FIRST_PLANS: Mapping[str, QuantizationPlan] = {
    "static": QuantizationPlan("static"),
    "dynamic": QuantizationPlan("dynamic", per_channel=False),
}
FIRST_PLANS = {**FIRST_PLANS, "weight-only": FIRST_PLANS["dynamic"]}  # the 8-bit rungs, which follow the 4-bit one


class QuantizationCandidate(Struct, frozen=True):
    """A way to quantize that was tried, and its result."""

    plan: str
    points_lost: float  # of the metric, on the validation set, in its unit (`pilotlight.contracts.metric`)
    bytes: int
    holds: bool  # within the budget, and smaller than fp32
    why: str
    spared: dict[str, float] = {}  # layers left in fp32, with dB of signal to noise where each alone is quantized
    precision: Precision = "int8"


def select_best_candidate(candidates: Sequence[QuantizationCandidate]) -> QuantizationCandidate:
    """Select the candidate whose graph was written: the one that holds, or the first of those that lose least."""
    return candidates[-1] if candidates[-1].holds else min(candidates, key=lambda rung: rung.points_lost)


@dataclass(frozen=True)
class QuantizationSearch:
    """Tries quantization plans of one graph on the same calibration inputs, with the same evaluation."""

    graph: Path
    calibration: Inputs
    validation: Dataset
    options: QuantizationOptions

    def search(self, path: Path) -> tuple[QuantizationCandidate, ...]:
        """Write the first variant that holds, or the one that loses least, and return all candidates."""
        tried: list[tuple[QuantizationCandidate, QuantizationPlan]] = []
        for plan, spared in self.generate_plans():
            quantize_graph(self.graph, self.calibration, plan, path)
            tried.append((self.evaluate_candidate(plan, spared, path), plan))
            if tried[-1][0].holds:
                break
        else:
            _, least = min(tried, key=lambda each: each[0].points_lost)
            quantize_graph(self.graph, self.calibration, least, path)
        return tuple(rung for rung, _ in tried)

    def generate_plans(self) -> Iterator[tuple[QuantizationPlan, dict[str, float]]]:
        """Generate plans in order: 4 bits for weights alone; in 8, the scheme, per channel, then without worst layers.

        The number of excluded layers doubles: one, two, four ...
        """
        if self.options.scheme == "weight-only":
            yield QuantizationPlan("weight-only", block_size=self.options.block), {}
        first = FIRST_PLANS[self.options.scheme]
        yield first, {}
        finer = replace(first, per_channel=True)
        if finer != first:
            yield finer, {}
        worst, count = self.rank_layers(finer), 1
        while count < len(worst):
            spared = dict(list(worst.items())[:count])
            yield replace(finer, excluded_layers=tuple(spared)), spared
            count *= 2

    def evaluate_candidate(self, plan: QuantizationPlan, spared: dict[str, float], path: Path) -> QuantizationCandidate:
        """Evaluate whether a variant is within the budget on the validation set, and smaller than fp32."""
        full, size, name = self.graph.stat().st_size, path.stat().st_size, self.validation.metric
        metric, budget = METRICS[name], self.budget
        lost = metric.compute_degradation(self.measure_metric(self.graph), self.measure_metric(path))
        holds = lost <= budget
        reason = f"it loses {metric.format_difference(lost, name)}, {'within' if holds else 'more than'} the budget of "
        reason += f"{budget:.{metric.decimals}f}"
        if holds and size >= full:
            holds, reason = False, f"its {size:,} bytes are no fewer than the {full:,} of fp32"
        return QuantizationCandidate(str(plan), lost, size, holds, reason, spared, plan.precision)

    @property
    def budget(self) -> float:
        """The largest allowed loss, in the metric's unit."""
        return METRICS[self.validation.metric].default_budget if self.options.budget is None else self.options.budget

    def measure_metric(self, graph: Path) -> float:
        """Measure the metric of a graph on the validation set."""
        answers = run_graph(open_session(str(graph)), self.validation.inputs)
        return evaluate_outputs(answers, self.validation).metrics[self.validation.metric]

    def rank_layers(self, plan: QuantizationPlan) -> dict[str, float]:
        """Rank the layers, worst first, by the signal-to-noise ratio in dB when only that layer is quantized."""
        layer_names = list_quantizable_layers(self.graph)
        alone = {
            name: self.measure_signal_to_noise(
                replace(plan, excluded_layers=tuple(other for other in layer_names if other != name))
            )
            for name in layer_names
        }
        return dict(sorted(alone.items(), key=lambda pair: pair[1]))

    def measure_signal_to_noise(self, plan: QuantizationPlan) -> float:
        """Measure the ratio of the outputs on the calibration inputs to the quantization noise, in dB."""
        with TemporaryDirectory(prefix="pilotlight-ladder-") as folder:
            path = Path(folder, "alone.onnx")
            quantize_graph(self.graph, self.calibration, plan, path)
            answers = [run_graph(open_session(str(graph)), self.calibration) for graph in (self.graph, path)]
        return float(signal_to_noise(*answers))
