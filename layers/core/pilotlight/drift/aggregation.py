"""Lines of captures, counted into the bins of a profile as they come; memory does not grow with their number."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pilotlight.capture.record import Line
from pilotlight.contracts.feature_profile import Categories, Histogram, Numbers, Profile
from pilotlight.drift.histograms import Array, counted

AT_ONCE = 4096  # values of a feature that are held before they are counted
Values = list[float | str | None]


@dataclass
class Side:
    """Histograms with a profile's bins, and values that are not counted yet."""

    counts: dict[str, Histogram]
    held: dict[str, Values] = field(default_factory=dict)

    def add(self, found: Mapping[str, Values]) -> None:
        """Values by feature; a feature that the profile does not know has nothing to be compared with."""
        for name, values in found.items():
            if name in self.counts:
                held = self.held.setdefault(name, [])
                held.extend(values)
                if len(held) >= AT_ONCE:
                    self._count(name)

    def settled(self) -> dict[str, Histogram]:
        """The histograms with everything counted."""
        for name in list(self.held):
            self._count(name)
        return self.counts

    def _count(self, name: str) -> None:
        histogram = self.counts[name]
        self.counts[name] = counted(histogram, array(histogram, self.held.pop(name)))


class Tally:
    """What came, beside a profile."""

    def __init__(self, profile: Profile) -> None:
        self.requests = self.examples = 0
        self._features = Side(emptied(profile.features))
        self._answers = Side(emptied(profile.answers))

    def add(self, line: Line) -> None:
        """Count one request."""
        self.requests += 1
        self.examples += max((len(values) for values in (*line.features.values(), *line.answers.values())), default=0)
        self._features.add(line.features)
        self._answers.add(line.answers)

    @property
    def features(self) -> dict[str, Histogram]:
        """What was sent."""
        return self._features.settled()

    @property
    def answers(self) -> dict[str, Histogram]:
        """How the model answered."""
        return self._answers.settled()


def emptied(histograms: Mapping[str, Histogram]) -> dict[str, Histogram]:
    """The same bins with nothing in them."""
    return {name: cleared(one) for name, one in histograms.items()}


def cleared(histogram: Histogram) -> Histogram:
    """The same bins with nothing in them."""
    nothing = (0,) * len(histogram.counts)
    if isinstance(histogram, Categories):
        return Categories(histogram.names, nothing)
    return Numbers(histogram.edges, nothing)


def array(histogram: Histogram, values: Values) -> Array:
    """Values as their histogram takes them; what is of the other kind is missing there."""
    if isinstance(histogram, Categories):
        return np.array([None if value is None else str(value) for value in values], object)
    return np.array([value if isinstance(value, float) else np.nan for value in values], np.float64)
