"""Count records of captures into a profile's bins as they come; memory does not grow with their number."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pilotlight.capture.record import CaptureRecord
from pilotlight.contracts.feature_profile import CategoricalHistogram, FeatureProfile, Histogram, NumericHistogram
from pilotlight.drift.histograms import add_values
from pilotlight.runtime.datatypes import Array

MAX_HELD_VALUES = 4096  # values of a feature that are held before they are counted
Values = list[float | str | None]


@dataclass
class FeatureCounts:
    """Histograms with a profile's bins, and values that are not counted yet."""

    histograms: dict[str, Histogram]
    pending_values: dict[str, Values] = field(default_factory=dict)

    def add(self, values_by_feature: Mapping[str, Values]) -> None:
        """Add values by feature; ignore features that are not in the profile."""
        for name, values in values_by_feature.items():
            if name in self.histograms:
                held = self.pending_values.setdefault(name, [])
                held.extend(values)
                if len(held) >= MAX_HELD_VALUES:
                    self._count_feature(name)

    def count_pending(self) -> dict[str, Histogram]:
        """Count all pending values and return the histograms."""
        for name in list(self.pending_values):
            self._count_feature(name)
        return self.histograms

    def _count_feature(self, name: str) -> None:
        histogram = self.histograms[name]
        self.histograms[name] = add_values(histogram, to_histogram_values(histogram, self.pending_values.pop(name)))


class HistogramAggregator:
    """The histograms of captured requests, in the bins of a profile."""

    def __init__(self, profile: FeatureProfile) -> None:
        self.requests = self.examples = 0
        self._features = FeatureCounts(clear_histograms(profile.features))
        self._answers = FeatureCounts(clear_histograms(profile.answers))

    def add(self, record: CaptureRecord) -> None:
        """Count one request."""
        self.requests += 1
        self.examples += max(
            (len(values) for values in (*record.features.values(), *record.answers.values())), default=0
        )
        self._features.add(record.features)
        self._answers.add(record.answers)

    @property
    def features(self) -> dict[str, Histogram]:
        """The histograms of the requests."""
        return self._features.count_pending()

    @property
    def answers(self) -> dict[str, Histogram]:
        """The histograms of the answers."""
        return self._answers.count_pending()


def clear_histograms(histograms: Mapping[str, Histogram]) -> dict[str, Histogram]:
    """Return histograms with the same bins and no counts."""
    return {name: clear_histogram(one) for name, one in histograms.items()}


def clear_histogram(histogram: Histogram) -> Histogram:
    """Return a histogram with the same bins and no counts."""
    nothing = (0,) * len(histogram.counts)
    if isinstance(histogram, CategoricalHistogram):
        return CategoricalHistogram(histogram.names, nothing)
    return NumericHistogram(histogram.edges, nothing)


def to_histogram_values(histogram: Histogram, values: Values) -> Array:
    """Convert values to the type of their histogram; values of the other type become missing."""
    if isinstance(histogram, CategoricalHistogram):
        return np.array([None if value is None else str(value) for value in values], object)
    return np.array([value if isinstance(value, float) else np.nan for value in values], np.float64)
