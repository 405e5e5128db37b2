"""A difference of a metric is a loss when it is for the worse, whichever way that is."""

import pytest

from pilotlight.contracts.metric import METRICS


@pytest.mark.parametrize(
    ("name", "before", "after", "lost", "told"),
    [
        ("accuracy", 0.98, 0.975, 0.5, "0.50 points of accuracy"),
        ("balanced_accuracy", 0.9, 0.95, -5, "-5.00 points of balanced_accuracy"),
        ("r2", 0.5, 0.497, 0.3, "0.30 points of r2"),
        ("loss", 3.5, 3.512, 0.012, "0.0120 nats per token of loss"),
        ("loss", 3.5, 3.4, -0.1, "-0.1000 nats per token of loss"),
    ],
)
def test_loss_of_a_metric(name: str, before: float, after: float, lost: float, told: str) -> None:
    metric = METRICS[name]
    assert metric.compute_degradation(before, after) == lost
    assert metric.format_difference(lost, name) == told
