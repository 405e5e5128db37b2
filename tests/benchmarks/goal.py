"""One measured number beside the goal it is held to."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

Side = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Measure:
    """`found` must not exceed `limit`, or with `least` not fall below it; both in `unit`, empty for a ratio."""

    goal: str
    what: str
    found: float
    limit: float
    unit: str = ""
    least: bool = False

    @property
    def reached(self) -> bool:
        """Whether the goal is reached."""
        return self.found >= self.limit if self.least else self.found <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """The measure for the JSON result."""
        return dataclasses.asdict(self) | {"reached": self.reached}


def interleaved(sides: Mapping[str, Side], rounds: int) -> dict[str, float]:
    """The median seconds of each side, taken in turn, so that a busy neighbour slows all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - started)
    return {name: median(times) for name, times in seconds.items()}
