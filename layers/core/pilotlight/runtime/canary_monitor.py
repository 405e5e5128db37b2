"""A canary as one environment sees it: what its requests and the champion's came to, and when to stop by itself.

Each environment stops at once and alone; `functions/promote` then ends the trial for all (infra/decisions/0027).
It counts, and knows neither alias documents' place nor models.
"""

from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from pilotlight.contracts.manifest import Canary
from pilotlight.runtime.session import Array

WINDOW = 500  # latest requests of canary and champion that are compared
IN_A_ROW = 3  # consecutive failures that stop the canary whatever its error rate
ALLOWANCE_MS = 5.0  # ms that a canary may take longer, whatever the ratio
DRIFT_TIMES = 4  # min_requests before drift is believed: few answers differ by chance


@dataclass
class Side:
    """The latest requests of one version: whether each failed, how long it took, and which class it gave."""

    failed: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    times_ms: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    answers: deque[int] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def add(self, ms: float, answers: Array | None) -> None:
        """A request that was answered; without classes there is nothing to compare."""
        self.failed.append(False)
        self.times_ms.append(ms)
        if answers is not None and answers.ndim > 1 and answers.shape[-1] > 1 and answers.dtype.kind == "f":
            self.answers.extend(answers.argmax(axis=-1).ravel().tolist())


class Trial:
    """What is known of a canary in this environment."""

    def __init__(self, canary: Canary) -> None:
        self.canary = canary
        self.ours, self.theirs = Side(), Side()  # outcomes of the canary, and of the champion
        self.stopped: str | None = None  # the reason, once it has been stopped

    def champion(self, ms: float, answers: Array | None) -> None:
        """Note a request that the champion answered."""
        self.theirs.add(ms, answers)

    def answered(self, ms: float, answers: Array | None) -> str | None:
        """Note a request that the canary answered; why to stop, if this decides it."""
        self.ours.add(ms, answers)
        return self._decide()

    def failed(self, why: str) -> str | None:
        """Note a request that the canary could not answer; why to stop, if this decides it."""
        self.ours.failed.append(True)
        return self._decide(why)

    def stop(self, why: str) -> str | None:
        """Stop it for a reason of somebody else's; why, unless it was stopped before."""
        if self.stopped is not None:
            return None
        self.stopped = why
        return why

    def _decide(self, error: str = "") -> str | None:
        if self.stopped is None:
            self.stopped = self._errors(error) or self._slowness() or self._drift()
            return self.stopped
        return None

    def _errors(self, error: str) -> str | None:
        latest = list(self.ours.failed)
        if len(latest) >= IN_A_ROW and all(latest[-IN_A_ROW:]):
            return f"its last {IN_A_ROW} requests failed: {error}"
        share = mean(latest)
        if len(latest) < self.canary.min_requests or share <= self.canary.max_error_rate:
            return None
        said = f"{sum(latest)} of its last {len(latest)} requests failed"
        return f"{said}, {share:.2%} where {self.canary.max_error_rate:.2%} are let through" + (error and f": {error}")

    def _slowness(self) -> str | None:
        if min(len(self.ours.times_ms), len(self.theirs.times_ms)) < self.canary.min_requests:
            return None
        ours, theirs = mean(self.ours.times_ms), mean(self.theirs.times_ms)
        if ours <= max(theirs * self.canary.max_latency_ratio, theirs + ALLOWANCE_MS):
            return None
        said = f"it takes {ours:.2f} ms, the champion {theirs:.2f}"
        return f"{said}, more than {self.canary.max_latency_ratio:g} times as long"

    def _drift(self) -> str | None:
        if min(len(self.ours.answers), len(self.theirs.answers)) < DRIFT_TIMES * self.canary.min_requests:
            return None
        distance = total_variation(Counter(self.ours.answers), Counter(self.theirs.answers))
        if distance <= self.canary.max_drift:
            return None
        return f"its answers are {distance:.2f} away from the champion's, more than {self.canary.max_drift:g}"


def mean(values: Collection[float]) -> float:
    """Their mean; python's own module for it takes 3 ms to import."""
    return sum(values) / len(values)


def total_variation(ours: Counter[int], theirs: Counter[int]) -> float:
    """Half the sum of the differences of two distributions' shares, 0 to 1 (Levin, Peres, Wilmer, 2017, ch. 4)."""
    mine, other = ours.total(), theirs.total()
    return sum(abs(ours[answer] / mine - theirs[answer] / other) for answer in ours.keys() | theirs.keys()) / 2


def unusable(outputs: Mapping[str, Array]) -> str | None:
    """Why answers are none: NaN and infinities, which no champion's callers would get."""
    for name, values in outputs.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            return f"output {name!r} is NaN or infinite"
    return None
