"""What models are judged by: which way is better, and in what a difference is told.

It knows names and numbers, not how a metric is computed: that is for who trains, and for `gate.metric`.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class MetricDefinition:
    """A metric by its name in a manifest."""

    unit: str  # that a difference is told in
    units_per_one: float  # of that unit in a difference of 1
    higher_is_better: bool
    decimals: int  # after the point, that a difference is told with
    default_budget: float  # that quantization, or a new version, may lose where nobody says otherwise, in the unit

    def compute_degradation(self, before: float, after: float) -> float:
        """By how much `after` is worse, in the unit; negative when it is better. Rounded: 0.5 lost is within 0.5."""
        worse = before - after if self.higher_is_better else after - before
        return round(self.units_per_one * worse, 6)

    def format_difference(self, amount: float, name: str) -> str:
        """A difference in words: 0.50 points of accuracy, 0.0123 nats per token of loss."""
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
