"""What an evaluation gives. It imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """The scores of a model's outputs: shares of right classes, or the distance to the right numbers."""

    loss: float  # mean cross-entropy in nats, of a text per token; of numbers, the mean squared error
    metrics: dict[str, float]  # by name; the first is what training shows as it goes
    per_class: dict[str, float]  # the recall of each class that occurs, 0 to 1

    @property
    def main_metric(self) -> tuple[str, float]:
        """The metric that training shows, by name."""
        return next(iter(self.metrics.items()))

    @property
    def accuracy(self) -> float:
        """The share of right answers, 0 to 1; of classes only."""
        return self.metrics["accuracy"]
