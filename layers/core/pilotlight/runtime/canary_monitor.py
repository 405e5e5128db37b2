"""Compare a canary's requests with the champion's in one environment, and decide when to stop the canary.

Each environment stops it immediately and independently; `functions/promote` then ends the canary for all
(infra/decisions/0027). This module counts; it depends neither on where alias documents are stored nor on models.
"""

from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from pilotlight.contracts.alias import Canary
from pilotlight.runtime.datatypes import Array

WINDOW_REQUESTS = 500  # latest requests of canary and champion that are compared
MAX_CONSECUTIVE_FAILURES = 3  # consecutive failures that stop the canary whatever its error rate
ALLOWANCE_MS = 5.0  # ms that a canary may take longer, whatever the ratio
DRIFT_SAMPLE_FACTOR = 4  # times min_requests before drift counts, since few answers differ by chance


@dataclass
class RequestWindow:
    """The latest requests of one version: whether each failed, its latency, and the predicted classes."""

    failures: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW_REQUESTS))
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW_REQUESTS))
    predicted_classes: deque[int] = field(default_factory=lambda: deque(maxlen=WINDOW_REQUESTS))

    def add_success(self, ms: float, scores: Array | None) -> None:
        """Add an answered request; only scores of several classes have a class to compare."""
        self.failures.append(False)
        self.latencies_ms.append(ms)
        if scores is not None and scores.ndim > 1 and scores.shape[-1] > 1 and scores.dtype.kind == "f":
            self.predicted_classes.extend(scores.argmax(axis=-1).ravel().tolist())


class CanaryMonitor:
    """The state of a canary in this environment."""

    def __init__(self, canary: Canary) -> None:
        self.canary = canary
        self.canary_window, self.champion_window = (
            RequestWindow(),
            RequestWindow(),
        )
        self.stop_reason: str | None = None  # set once the canary is stopped

    def record_champion(self, ms: float, scores: Array | None) -> None:
        """Record a request that the champion answered."""
        self.champion_window.add_success(ms, scores)

    def record_success(self, ms: float, scores: Array | None) -> str | None:
        """Record a request that the canary answered; return the reason to stop if it causes one."""
        self.canary_window.add_success(ms, scores)
        return self._check_limits()

    def record_failure(self, reason: str) -> str | None:
        """Record a request that the canary failed to answer; return the reason to stop if it causes one."""
        self.canary_window.failures.append(True)
        return self._check_limits(reason)

    def stop(self, reason: str) -> str | None:
        """Stop the canary for the caller's reason; return the reason, or None if it was stopped before."""
        if self.stop_reason is not None:
            return None
        self.stop_reason = reason
        return reason

    def _check_limits(self, error: str = "") -> str | None:
        if self.stop_reason is None:
            self.stop_reason = self._check_error_rate(error) or self._check_latency() or self._check_drift()
            return self.stop_reason
        return None

    def _check_error_rate(self, error: str) -> str | None:
        latest = list(self.canary_window.failures)
        if len(latest) >= MAX_CONSECUTIVE_FAILURES and all(latest[-MAX_CONSECUTIVE_FAILURES:]):
            return f"its last {MAX_CONSECUTIVE_FAILURES} requests failed: {error}"
        share = compute_mean(latest)
        if len(latest) < self.canary.min_requests or share <= self.canary.max_error_rate:
            return None
        summary = f"{sum(latest)} of its last {len(latest)} requests failed"
        return f"{summary}, {share:.2%} where {self.canary.max_error_rate:.2%} are let through" + (
            error and f": {error}"
        )

    def _check_latency(self) -> str | None:
        if min(len(self.canary_window.latencies_ms), len(self.champion_window.latencies_ms)) < self.canary.min_requests:
            return None
        canary_ms, champion_ms = (
            compute_mean(self.canary_window.latencies_ms),
            compute_mean(self.champion_window.latencies_ms),
        )
        if canary_ms <= max(champion_ms * self.canary.max_latency_ratio, champion_ms + ALLOWANCE_MS):
            return None
        summary = f"it takes {canary_ms:.2f} ms, the champion {champion_ms:.2f}"
        return f"{summary}, more than {self.canary.max_latency_ratio:g} times as long"

    def _check_drift(self) -> str | None:
        if (
            min(len(self.canary_window.predicted_classes), len(self.champion_window.predicted_classes))
            < DRIFT_SAMPLE_FACTOR * self.canary.min_requests
        ):
            return None
        distance = compute_total_variation(
            Counter(self.canary_window.predicted_classes), Counter(self.champion_window.predicted_classes)
        )
        if distance <= self.canary.max_drift:
            return None
        return f"its answers are {distance:.2f} away from the champion's, more than {self.canary.max_drift:g}"


def compute_mean(values: Collection[float]) -> float:
    """Compute the mean; the standard library's `statistics` takes 3 ms to import."""
    return sum(values) / len(values)


def compute_total_variation(canary_counts: Counter[int], champion_counts: Counter[int]) -> float:
    """Compute the total variation distance of two distributions, 0 to 1 (Levin, Peres, Wilmer, 2017, ch. 4)."""
    canary_total, champion_total = canary_counts.total(), champion_counts.total()
    return (
        sum(
            abs(canary_counts[answer] / canary_total - champion_counts[answer] / champion_total)
            for answer in canary_counts.keys() | champion_counts.keys()
        )
        / 2
    )


def find_non_finite_output(outputs: Mapping[str, Array]) -> str | None:
    """Describe the first output with NaN or infinities, which count as a failure; None if all are finite."""
    for name, values in outputs.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            return f"output {name!r} is NaN or infinite"
    return None
