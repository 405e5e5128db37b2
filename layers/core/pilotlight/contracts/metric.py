"""The metrics by which models are compared: which direction is better, and the unit of a difference.

The module knows names and numbers, not how a metric is computed: training and `gate.metrics` do that.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class MetricDefinition:
    """A metric by its name in a manifest."""

    unit: str  # of a difference
    units_per_one: float  # how much of that unit is a difference of 1
    higher_is_better: bool
    decimals: int  # of a difference, after the point
    default_budget: float  # the default for what quantization, or a new version, may lose, in the unit

    def compute_degradation(self, before: float, after: float) -> float:
        """Compute by how much `after` is worse, in the unit; negative if better. Rounded: 0.5 lost is within 0.5."""
        worse = before - after if self.higher_is_better else after - before
        return round(self.units_per_one * worse, 6)

    def format_difference(self, amount: float, name: str) -> str:
        """Format a difference: 0.50 points of accuracy, 0.0123 nats per token of loss."""
        return f"{amount:.{self.decimals}f} {self.unit} of {name}"


POINTS_METRIC = MetricDefinition("points", 100, higher_is_better=True, decimals=2, default_budget=0.5)
METRICS: Mapping[str, MetricDefinition] = {
    "accuracy": POINTS_METRIC,
    "balanced_accuracy": POINTS_METRIC,
    "r2": POINTS_METRIC,
    "loss": MetricDefinition(
        "nats per token", 1, higher_is_better=False, decimals=4, default_budget=0.02
    ),  # 2 % more perplexity
}
