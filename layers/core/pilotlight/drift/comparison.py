"""Two histograms of a feature, and what to say of them: stable, changed, drifted, or too few to say.

A change must be both large and no accident. Large: PSI of 0.25, by custom (see `statistics.compute_psi`), and changed
from 0.1; or a Kolmogorov-Smirnov distance of as much, since PSI does not see how far beyond its outermost tenth a
number went. No accident: the smaller one of both tests' p-values, doubled since there are two, times the number of
features, stays below `FALSE_ALARM_RATE` (Bonferroni). So whatever the number of features, an unchanged world is called
changed in 1 % of the reports at most. Without the first, millions of requests would make any difference a drift;
without the second, thirty.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from msgspec import Struct

from pilotlight.contracts.feature_profile import CategoricalHistogram, Histogram, NumericHistogram
from pilotlight.drift import statistics
from pilotlight.drift.statistics import SignificanceResult
from pilotlight.runtime.datatypes import Array

MIN_EXAMPLES = 30  # examples, below which nothing is said
CHANGED_THRESHOLD, DRIFTED_THRESHOLD = 0.1, 0.25  # of PSI, and of the Kolmogorov-Smirnov distance
FALSE_ALARM_RATE = 0.01  # of a report that says that something changed where nothing has
DriftLevel = Literal["stable", "changed", "drifted", "too few"]
FeatureKind = Literal["feature", "answer"]


class GroupShares(Struct, frozen=True):
    """A part of the range, or a category, and the share of examples in it."""

    name: str
    before: float
    now: float


class Comparison(Struct, frozen=True, kw_only=True):
    """A feature, or a part of the answers, then and now."""

    name: str
    part: FeatureKind
    verdict: DriftLevel
    examples: int  # now, with those where it is missing
    psi: float
    psi_p: float
    ks: float | None = None  # of numbers
    ks_p: float | None = None
    p: float = 1.0  # of both tests, corrected for the number of tests in the report
    missing: tuple[float, float] = (0.0, 0.0)  # share then and now
    outside: float = 0.0  # share now that is beyond all that was seen in training, or no known category
    groups: tuple[GroupShares, ...] = ()


def compare_features(
    part: FeatureKind, before: Mapping[str, Histogram], now: Mapping[str, Histogram], test_count: int
) -> list[Comparison]:
    """Each feature, of a report that has so many tests."""
    return [compare_histograms(part, name, one, now[name], test_count) for name, one in before.items()]


def compare_histograms(part: FeatureKind, name: str, before: Histogram, now: Histogram, test_count: int) -> Comparison:
    """One feature, of a report that has so many tests."""
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
    """What the numbers come to."""
    if examples < MIN_EXAMPLES:
        return "too few"
    if p >= FALSE_ALARM_RATE:
        return "stable"
    size = max(index.statistic, distance.statistic if distance else 0.0)
    return "drifted" if size >= DRIFTED_THRESHOLD else "changed" if size >= CHANGED_THRESHOLD else "stable"


def group_counts(before: Histogram, now: Histogram) -> tuple[list[str], Array, Array]:
    """Names and counts of the groups that PSI is taken over, those that are empty then and now left out.

    Tenths, the outer ones with all beyond them, or categories; and what is missing. Groups of their own for what is
    beyond would be empty in training by their making, which chi-squared knows nothing of: it cost 2.8 % false alarms.
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
    """The name of the bins from `begin` to before `end`."""
    low = f"{edges[begin - 1]:.4g}" if begin else ""
    high = f"{edges[end - 1]:.4g}" if end <= len(edges) else ""
    if not low or not high:
        return f"up to {high}" if high else f"above {low}" if low else "all"
    return f"{low} to {high}"


def count_outside(before: Histogram, now: Histogram) -> int:
    """How many now are below the least or above the most that training saw, or of no category that it knew."""
    if isinstance(before, NumericHistogram):
        return now.counts[0] + now.counts[-1] if before.edges else 0
    return now.counts[-1] if not before.counts[-1] else 0


def compute_shares(counts: Array) -> list[float]:
    """Of the whole."""
    return [compute_share(count, counts) for count in counts.tolist()]


def compute_share(count: int, counts: Array) -> float:
    """Of the whole, to 6 digits; 0 of nothing."""
    return round(count / total, 6) if (total := int(counts.sum())) else 0.0
