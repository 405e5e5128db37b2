"""Build histograms from a training set's values, and count other values into existing bins.

The module knows arrays and bins, not what they mean. Numbers are compared as float32: a caller's 13.7 is 13.70000019 if
the training set was read as float32, and would otherwise be on the other side of an edge that is a frequent value.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from pilotlight.contracts.feature_profile import CategoricalHistogram, Histogram, NumericHistogram
from pilotlight.runtime.datatypes import Array

MAX_BINS = 64  # of a number, at most: one is 1.6 % of the training set
MIN_BINS = 16  # of a number among very many
MAX_EDGES = 8192  # of all features of a profile together, about: so it stays below some 200 kB
MAX_CATEGORIES = 64  # of a categorical feature, the most frequent ones


def choose_bin_count(feature_count: int) -> int:
    """Choose the number of bins of a number in a profile with `feature_count` features."""
    return max(MIN_BINS, min(MAX_BINS, MAX_EDGES // max(feature_count, 1)))


def build_histogram(values: Array, bins: int = MAX_BINS) -> Histogram:
    """Build a histogram with bins from the values: (N,) numbers with NaN for missing, or strings with None."""
    if values.dtype == object:
        return add_values(
            CategoricalHistogram(find_frequent_categories(values), (0,) * (len(find_frequent_categories(values)) + 1)),
            values,
        )
    return add_values(create_empty_bins(compute_quantile_edges(values, bins)), values)


def create_empty_bins(edges: Sequence[float]) -> NumericHistogram:
    """Create a histogram with these edges and no counts."""
    return NumericHistogram(tuple(edges), (0,) * (len(edges) + 1))


def compute_quantile_edges(values: Array, bins: int) -> list[float]:
    """Compute edges at the values' quantiles, each once, and one below the smallest value, so that lower ones show."""
    finite = to_float32(values)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return []
    inner = np.unique(np.quantile(finite, np.linspace(0, 1, bins + 1), method="inverted_cdf"))
    below = np.nextafter(inner[0], np.float32(-np.inf))
    return [float(str(edge)) for edge in (below, *inner)]  # the shortest that is read back as the same float32


def find_frequent_categories(values: Array) -> tuple[str, ...]:
    """Return the most frequent categories, in alphabetical order."""
    counts = Counter(value for value in values.tolist() if value is not None)
    return tuple(sorted(word for word, _ in counts.most_common(MAX_CATEGORIES)))


def add_values(histogram: Histogram, values: Array) -> Histogram:
    """Return the histogram with these values added."""
    if isinstance(histogram, CategoricalHistogram):
        added, missing = count_categories(histogram, values)
        return CategoricalHistogram(histogram.names, added, missing)
    numbers = to_float32(values)
    gaps = np.isnan(numbers)
    places = np.searchsorted(np.array(histogram.edges, np.float32), numbers[~gaps], side="left")
    found = np.bincount(places, minlength=len(histogram.counts)) + np.array(histogram.counts, np.int64)
    return NumericHistogram(histogram.edges, tuple(found.tolist()), histogram.missing + int(gaps.sum()))


def count_categories(histogram: CategoricalHistogram, values: Array) -> tuple[tuple[int, ...], int]:
    """Return the counts with these values added, and how many values are missing."""
    places = {name: place for place, name in enumerate(histogram.names)}
    counts, missing = list(histogram.counts), histogram.missing
    for word, count in Counter(values.tolist()).items():
        if word is None:
            missing += count
        else:
            counts[places.get(word, len(places))] += count
    return tuple(counts), missing


def to_float32(values: Array) -> Array:
    """Convert numbers to float32; too large ones become infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float64).astype(np.float32)
