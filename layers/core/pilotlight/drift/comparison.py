"""Compare two histograms of a feature: stable, changed, drifted, or too few examples.

A change must be both large and significant. Large: a PSI of 0.25, by custom (see `statistics.compute_psi`), counts as
drifted and one of 0.1 as changed; or a Kolmogorov-Smirnov distance of as much, since PSI does not see how far beyond
its outermost tenth a number went. Significant: the smaller p-value of the two tests, doubled since there are two, times
the number of features, is below `FALSE_ALARM_RATE` (Bonferroni). So whatever the number of features, at most 1 % of the
reports call unchanged data changed. Without the first condition, any difference would be a drift in millions of
requests; without the second, in thirty.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from msgspec import Struct

from pilotlight.contracts.feature_profile import CategoricalHistogram, Histogram, NumericHistogram
from pilotlight.drift import statistics
from pilotlight.drift.statistics import SignificanceResult
from pilotlight.runtime.datatypes import Array

MIN_EXAMPLES = 30  # below which no comparison is made
CHANGED_THRESHOLD, DRIFTED_THRESHOLD = 0.1, 0.25  # of PSI, and of the Kolmogorov-Smirnov distance
FALSE_ALARM_RATE = 0.01  # of a report of a change where nothing has changed
DriftLevel = Literal["stable", "changed", "drifted", "too few"]
FeatureKind = Literal["feature", "answer"]


class GroupShares(Struct, frozen=True):
    """A part of the range, or a category, and the share of examples in it."""

    name: str
    before: float
    now: float


class Comparison(Struct, frozen=True, kw_only=True):
    """A feature, or a part of the answers, in training and now."""

    name: str
    part: FeatureKind
    verdict: DriftLevel
    examples: int  # now, with those where it is missing
    psi: float
    psi_p: float
    ks: float | None = None  # of numbers
    ks_p: float | None = None
    p: float = 1.0  # of both tests, corrected for the number of tests in the report
    missing: tuple[float, float] = (0.0, 0.0)  # share in training and now
    outside: float = 0.0  # share now beyond the range of training, or in no known category
    groups: tuple[GroupShares, ...] = ()


def compare_features(
    part: FeatureKind, before: Mapping[str, Histogram], now: Mapping[str, Histogram], test_count: int
) -> list[Comparison]:
    """Compare each feature, in a report with `test_count` tests."""
    return [compare_histograms(part, name, one, now[name], test_count) for name, one in before.items()]


def compare_histograms(part: FeatureKind, name: str, before: Histogram, now: Histogram, test_count: int) -> Comparison:
    """Compare one feature, in a report with `test_count` tests."""
    labels, one, other = group_counts(before, now)
    index = statistics.compute_psi(one, other)
    distance = statistics.compute_ks(before.counts, now.counts) if isinstance(before, NumericHistogram) else None
    smallest = index.p_value if distance is None else 2 * min(index.p_value, distance.p_value)
    p, total = min(1.0, smallest * test_count), int(other.sum())
    return Comparison(
        name=name,
        part=part,
        verdict=classify_drift(total, index, distance, p),
        examples=total,
        psi=index.statistic,
        psi_p=index.p_value,
        ks=distance.statistic if distance else None,
        ks_p=distance.p_value if distance else None,
        p=p,
        missing=(compute_share(before.missing, one), compute_share(now.missing, other)),
        outside=compute_share(count_outside(before, now), other),
        groups=tuple(map(GroupShares, labels, compute_shares(one), compute_shares(other))),
    )


def classify_drift(
    examples: int, index: SignificanceResult, distance: SignificanceResult | None, p: float
) -> DriftLevel:
    """Classify the change by its size and significance."""
    if examples < MIN_EXAMPLES:
        return "too few"
    if p >= FALSE_ALARM_RATE:
        return "stable"
    size = max(index.statistic, distance.statistic if distance else 0.0)
    return "drifted" if size >= DRIFTED_THRESHOLD else "changed" if size >= CHANGED_THRESHOLD else "stable"


def group_counts(before: Histogram, now: Histogram) -> tuple[list[str], Array, Array]:
    """Return names and counts of the groups that PSI uses, without those that are empty in both histograms.

    The groups are tenths, where the outer ones include all values beyond them, or categories; and the missing values.
    Separate groups for values beyond the range would always be empty in training, which chi-squared does not allow for:
    it cost 2.8 % false alarms.
    """
    if isinstance(before, CategoricalHistogram):
        labels, counts = [*before.names, "others"], [np.array(one.counts, np.int64) for one in (before, now)]
    else:
        slices = statistics.group_bins(before.counts)
        labels = [format_range(before.edges, begin, end) for begin, end in slices]
        counts = [statistics.merge_counts(one.counts, slices) for one in (before, now)]
    labels.append("missing")
    one, other = (np.append(count, whole.missing) for count, whole in zip(counts, (before, now), strict=True))
    there = (one + other) > 0
    return [label for label, seen in zip(labels, there, strict=True) if seen], one[there], other[there]


def format_range(edges: tuple[float, ...], begin: int, end: int) -> str:
    """Format the name of the bins from `begin` to before `end`."""
    low = f"{edges[begin - 1]:.4g}" if begin else ""
    high = f"{edges[end - 1]:.4g}" if end <= len(edges) else ""
    if not low or not high:
        return f"up to {high}" if high else f"above {low}" if low else "all"
    return f"{low} to {high}"


def count_outside(before: Histogram, now: Histogram) -> int:
    """Count the values below the least or above the most of training, or in no category of training."""
    if isinstance(before, NumericHistogram):
        return now.counts[0] + now.counts[-1] if before.edges else 0
    return now.counts[-1] if not before.counts[-1] else 0


def compute_shares(counts: Array) -> list[float]:
    """Compute each count's share of the whole."""
    return [compute_share(count, counts) for count in counts.tolist()]


def compute_share(count: int, counts: Array) -> float:
    """Compute a count's share of the whole, to 6 digits; 0 if the whole is 0."""
    return round(count / total, 6) if (total := int(counts.sum())) else 0.0
