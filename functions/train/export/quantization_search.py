"""The search of a training for a way to fewer bits.

Each candidate is evaluated on the validation set; the test set, on which the report measures the chosen one, has no
influence on the choice.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from functions.train.data.dataset import Dataset
from functions.train.evaluation.graphs import evaluate_graph
from functions.train.export.candidate_search import CandidateSearch, QuantizationCandidate
from functions.train.export.quantize import QuantizationPlan
from pilotlight.contracts.metric import METRICS
from pilotlight.recipes.schema import QuantizationOptions
from pilotlight.runtime.session import open_session

# Static starts per channel: at no cost in time on any CPU measured, while dynamic pays some bytes and time for it.
FIRST_PLANS: Mapping[str, QuantizationPlan] = {
    "static": QuantizationPlan("static"),
    "dynamic": QuantizationPlan("dynamic", per_channel=False),
}
FIRST_PLANS = {**FIRST_PLANS, "weight-only": FIRST_PLANS["dynamic"]}  # the 8-bit rungs, which follow the 4-bit one


@dataclass(frozen=True)
class QuantizationSearch(CandidateSearch):
    """The search of a training: candidates are evaluated on the validation set, by the recipe's options."""

    validation: Dataset
    options: QuantizationOptions

    def generate_plans(self) -> Iterator[tuple[QuantizationPlan, dict[str, float]]]:
        """Generate plans in order: 4 bits for weights alone; in 8, the scheme, per channel, then sparing layers."""
        if self.options.scheme == "weight-only":
            yield QuantizationPlan("weight-only", block_size=self.options.block), {}
        first = FIRST_PLANS[self.options.scheme]
        yield first, {}
        finer = replace(first, per_channel=True)
        if finer != first:
            yield finer, {}
        yield from self.generate_sparing_plans(finer)

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
        return QuantizationCandidate(
            str(plan), lost, size, holds, reason, spared, plan.precision, size_ratio=size / full
        )

    @property
    def budget(self) -> float:
        """The largest allowed loss, in the metric's unit."""
        return METRICS[self.validation.metric].default_budget if self.options.budget is None else self.options.budget

    def measure_metric(self, graph: Path) -> float:
        """Measure the metric of a graph on the validation set."""
        name = self.validation.metric
        return evaluate_graph(open_session(str(graph)), self.validation, (name,)).metrics[name]
