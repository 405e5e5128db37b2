"""What models are judged by: which way is better, and in what a difference is told.

It knows names and numbers, not how a metric is computed: that is for who trains, and for `gate.metric`.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric by its name in a manifest."""

    unit: str  # that a difference is told in
    points: float  # of that unit in a difference of 1
    higher_is_better: bool
    digits: int  # after the point, that a difference is told with
    budget: float  # that quantization, or a new version, may lose where nobody says otherwise, in the unit

    def lost(self, before: float, after: float) -> float:
        """By how much `after` is worse, in the unit; negative when it is better. Rounded: 0.5 lost is within 0.5."""
        worse = before - after if self.higher_is_better else after - before
        return round(self.points * worse, 6)

    def told(self, amount: float, name: str) -> str:
        """A difference in words: 0.50 points of accuracy, 0.0123 nats per token of loss."""
        return f"{amount:.{self.digits}f} {self.unit} of {name}"


SHARE = Metric("points", 100, higher_is_better=True, digits=2, budget=0.5)
METRICS: Mapping[str, Metric] = {
    "accuracy": SHARE,
    "balanced_accuracy": SHARE,
    "r2": SHARE,
    "loss": Metric("nats per token", 1, higher_is_better=False, digits=4, budget=0.02),  # 2 % more perplexity
}
