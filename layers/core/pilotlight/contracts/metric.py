"""The metrics by which models are compared: which direction is better, and the unit of a difference.

The module knows names and numbers, not how a metric is computed: training and `gate.metrics` do that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class MetricDefinition:
    """A metric by its name in a manifest."""

    unit: str  # of a difference
    units_per_one: float  # how much of that unit is a difference of 1
    higher_is_better: bool
    decimals: int  # of a difference, after the point
    default_budget: float  # the default for what quantization, or a new version, may lose, in the unit
    is_relative: bool = False  # whether a difference is a share of the value before, which has no fixed size
    is_percentage: bool = False  # whether a value is shown in percent

    def compute_degradation(self, before: float, after: float) -> float:
        """Compute by how much `after` is worse, in the unit; negative if better. Rounded: 0.5 lost is within 0.5."""
        worse = before - after if self.higher_is_better else after - before
        if self.is_relative:
            worse /= max(abs(before), MIN_RELATIVE_BASE)
        return round(self.units_per_one * worse, 6)

    def format_difference(self, amount: float, name: str) -> str:
        """Format a difference: 0.50 points of accuracy, 0.0123 nats per token of loss."""
        return f"{amount:.{self.decimals}f} {self.unit} of {name}"

    def is_better(self, value: float, best: float, min_delta: float = 0.0) -> bool:
        """Return whether a value is better than the best so far, by more than `min_delta`; NaN never is."""
        return value > best + min_delta if self.higher_is_better else value < best - min_delta


MIN_RELATIVE_BASE = 1e-9  # below which an error counts as none
POINTS_METRIC = MetricDefinition("points", 100, higher_is_better=True, decimals=2, default_budget=0.5)
SHARE_METRIC = replace(POINTS_METRIC, is_percentage=True)
ERROR_METRIC = MetricDefinition(
    "%", 100, higher_is_better=False, decimals=2, default_budget=1.0, is_relative=True
)  # in the target's own unit, so that only a ratio means the same for every target
LOSS_METRIC = MetricDefinition("nats", 1, higher_is_better=False, decimals=4, default_budget=0.02)
TOP_COUNTS = (3, 5, 10)  # k of top_k: whether the right class is among the k most probable
CLASS_METRICS: Mapping[str, MetricDefinition] = {
    "accuracy": SHARE_METRIC,
    "balanced_accuracy": SHARE_METRIC,
    "f1": SHARE_METRIC,  # of two classes that of the second, of more the mean over the classes
    "auc": POINTS_METRIC,  # the area under the ROC curve; of more than two classes the mean, each against the rest
    **{f"top_{count}": SHARE_METRIC for count in TOP_COUNTS},
    "log_loss": LOSS_METRIC,
}
NUMBER_METRICS: Mapping[str, MetricDefinition] = {
    "r2": POINTS_METRIC,
    "mae": ERROR_METRIC,
    "rmse": ERROR_METRIC,
    "mape": replace(ERROR_METRIC, unit="points", is_relative=False, is_percentage=True, default_budget=0.5),
}
PERPLEXITY = "perplexity"
# In a variant's metrics: the perplexity of the unquantized model on the same text, where that is no variant itself.
SOURCE_PERPLEXITY = "source_perplexity"
METRICS: Mapping[str, MetricDefinition] = {
    **CLASS_METRICS,
    **NUMBER_METRICS,
    "loss": replace(LOSS_METRIC, unit="nats per token"),  # of a language model; 0.02 are 2 % more perplexity
    PERPLEXITY: ERROR_METRIC,  # of a language model that generates text: e to the power of its loss
}


def format_value(name: str, value: float) -> str:
    """Format a metric's value: shares in percent, all others as numbers."""
    known = METRICS.get(name)
    return f"{value:.2%}" if known and known.is_percentage else f"{value:.4g}"
