"""Two histograms of a feature, and what to say of them: stable, changed, drifted, or too few to say.

A change must be both large and no accident. Large: PSI of 0.25, by custom (see `statistics.psi`), and changed from 0.1;
or a Kolmogorov-Smirnov distance of as much, since PSI does not see how far beyond its outermost tenth a number went. No
accident: the smaller one of both tests' p-values, doubled since there are two, times the number of features, stays
below `CHANCE` (Bonferroni). So whatever the number of features, an unchanged world is called changed in 1 % of the
reports at most. Without the first, millions of requests would make any difference a drift; without the second, thirty.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from msgspec import Struct

from pilotlight.contracts.feature_profile import Categories, Histogram, Numbers
from pilotlight.drift import statistics
from pilotlight.drift.histograms import Array
from pilotlight.drift.statistics import Finding

FEWEST = 30  # examples, below which nothing is said
CHANGED, DRIFTED = 0.1, 0.25  # of PSI, and of the Kolmogorov-Smirnov distance
CHANCE = 0.01  # of a report that says that something changed where nothing has
Word = Literal["stable", "changed", "drifted", "too few"]
Part = Literal["feature", "answer"]


class Group(Struct, frozen=True):
    """A part of the range, or a category, and the share of examples in it."""

    name: str
    before: float
    now: float


class Comparison(Struct, frozen=True, kw_only=True):
    """A feature, or a part of the answers, then and now."""

    name: str
    part: Part
    verdict: Word
    examples: int  # now, with those where it is missing
    psi: float
    psi_p: float
    ks: float | None = None  # of numbers
    ks_p: float | None = None
    p: float = 1.0  # of both tests, corrected for the number of tests in the report
    missing: tuple[float, float] = (0.0, 0.0)  # share then and now
    outside: float = 0.0  # share now that is beyond all that was seen in training, or no known category
    groups: tuple[Group, ...] = ()


def compared(part: Part, before: Mapping[str, Histogram], now: Mapping[str, Histogram], tests: int) -> list[Comparison]:
    """Each feature, of a report that has so many tests."""
    return [compare(part, name, one, now[name], tests) for name, one in before.items()]


def compare(part: Part, name: str, before: Histogram, now: Histogram, tests: int) -> Comparison:
    """One feature, of a report that has so many tests."""
    labels, one, other = grouped(before, now)
    index = statistics.psi(one, other)
    distance = statistics.ks(before.counts, now.counts) if isinstance(before, Numbers) else None
    smallest = index.p if distance is None else 2 * min(index.p, distance.p)
    p, total = min(1.0, smallest * tests), int(other.sum())
    return Comparison(
        name=name,
        part=part,
        verdict=word(total, index, distance, p),
        examples=total,
        psi=index.statistic,
        psi_p=index.p,
        ks=distance.statistic if distance else None,
        ks_p=distance.p if distance else None,
        p=p,
        missing=(share(before.missing, one), share(now.missing, other)),
        outside=share(beyond(before, now), other),
        groups=tuple(map(Group, labels, shares(one), shares(other))),
    )


def word(examples: int, index: Finding, distance: Finding | None, p: float) -> Word:
    """What the numbers come to."""
    if examples < FEWEST:
        return "too few"
    if p >= CHANCE:
        return "stable"
    size = max(index.statistic, distance.statistic if distance else 0.0)
    return "drifted" if size >= DRIFTED else "changed" if size >= CHANGED else "stable"


def grouped(before: Histogram, now: Histogram) -> tuple[list[str], Array, Array]:
    """Names and counts of the groups that PSI is taken over, those that are empty then and now left out.

    Tenths, the outer ones with all beyond them, or categories; and what is missing. Groups of their own for what is
    beyond would be empty in training by their making, which chi-squared knows nothing of: it cost 2.8 % false alarms.
    """
    if isinstance(before, Categories):
        labels, counts = [*before.names, "others"], [np.array(one.counts, np.int64) for one in (before, now)]
    else:
        slices = statistics.groups(before.counts)
        labels = [ranged(before.edges, begin, end) for begin, end in slices]
        counts = [statistics.merged(one.counts, slices) for one in (before, now)]
    labels.append("missing")
    one, other = (np.append(count, whole.missing) for count, whole in zip(counts, (before, now), strict=True))
    there = (one + other) > 0
    return [label for label, seen in zip(labels, there, strict=True) if seen], one[there], other[there]


def ranged(edges: tuple[float, ...], begin: int, end: int) -> str:
    """The name of the bins from `begin` to before `end`."""
    low = f"{edges[begin - 1]:.4g}" if begin else ""
    high = f"{edges[end - 1]:.4g}" if end <= len(edges) else ""
    if not low or not high:
        return f"up to {high}" if high else f"above {low}" if low else "all"
    return f"{low} to {high}"


def beyond(before: Histogram, now: Histogram) -> int:
    """How many now are below the least or above the most that training saw, or of no category that it knew."""
    if isinstance(before, Numbers):
        return now.counts[0] + now.counts[-1] if before.edges else 0
    return now.counts[-1] if not before.counts[-1] else 0


def shares(counts: Array) -> list[float]:
    """Of the whole."""
    return [share(count, counts) for count in counts.tolist()]


def share(count: int, counts: Array) -> float:
    """Of the whole, to 6 digits; 0 of nothing."""
    return round(count / total, 6) if (total := int(counts.sum())) else 0.0
