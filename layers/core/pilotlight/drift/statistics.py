"""Compare two histograms over the same bins: population stability index and two-sample Kolmogorov-Smirnov test.

Pure functions of counts. Without scipy, which no handler has; the tests compare them with scipy's numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pilotlight.runtime.datatypes import Array

GROUP_COUNT = 10  # of about a tenth of the training set each, into which bins are merged for PSI
PRIOR = 0.5  # added to each count, so that an empty group does not make PSI infinite (Jeffreys' prior)
TOLERANCE = 1e-12  # a term of a series that is smaller than this changes no digit that is shown


@dataclass(frozen=True)
class SignificanceResult:
    """A statistic, and the probability of one as large if nothing has changed."""

    statistic: float
    p_value: float


def compute_psi(before: Sequence[int] | Array, after: Sequence[int] | Array) -> SignificanceResult:
    """Compute the population stability index: the sum of (q - p) ln(q / p) over the groups.

    p and q are the shares of each group before and now, each count with `PRIOR` added. By custom, below 0.1 nothing
    notable has changed, and above 0.25 much has (N. Siddiqi, Credit Risk Scorecards, 2006). That custom ignores the
    sample size: if nothing has changed, PSI / (1/n + 1/m) is distributed about as chi-squared with groups - 1 degrees
    of freedom (B. Yurdakul and J. Naranjo, Statistical properties of the population stability index, Journal of Risk
    Model Validation 14, 2020), so that 36 examples exceed 0.25 by chance alone. Hence the p-value.
    """
    one, other = (np.asarray(counts, np.float64) for counts in (before, after))
    n, m = float(one.sum()), float(other.sum())
    if not n or not m or len(one) < 2:
        return SignificanceResult(0.0, 1.0)
    p, q = ((counts + PRIOR) / (counts.sum() + PRIOR * len(counts)) for counts in (one, other))
    index = float(((q - p) * np.log(q / p)).sum())
    return SignificanceResult(index, chi_squared_survival(index / (1 / n + 1 / m), len(one) - 1))


def compute_ks(before: Sequence[int] | Array, after: Sequence[int] | Array) -> SignificanceResult:
    """Compute the two-sample Kolmogorov-Smirnov test on binned samples.

    D is the largest distance between the two cumulative shares at an edge. Between edges it may be larger, by the share
    of one bin at most: 1/64 for a number without frequent values (`histograms.MAX_BINS`). So D is a lower bound and p
    an upper one. p is Kolmogorov's limit with Stephens' correction for small samples (M. A. Stephens, Use of the
    Kolmogorov-Smirnov, Cramer-von Mises and related statistics without extensive tables, JRSS B 32, 1970; Numerical
    Recipes 14.3).
    """
    one, other = (np.asarray(counts, np.float64) for counts in (before, after))
    n, m = float(one.sum()), float(other.sum())
    if not n or not m:
        return SignificanceResult(0.0, 1.0)
    distance = float(np.abs(np.cumsum(one) / n - np.cumsum(other) / m).max())
    root = math.sqrt(n * m / (n + m))
    return SignificanceResult(distance, kolmogorov_survival((root + 0.12 + 0.11 / root) * distance))


def kolmogorov_survival(scaled: float) -> float:
    """Compute the probability that the limit of D sqrt(n) exceeds x: 2 sum over j of (-1)^(j - 1) exp(-2 j^2 x^2)."""
    if scaled < 0.2:
        return 1.0  # to 12 digits; the series converges slowly there
    total = 0.0
    for j in range(1, 101):
        term = math.exp(-2 * (j * scaled) ** 2)
        total += term if j % 2 else -term
        if term < TOLERANCE * total:
            break
    return min(1.0, max(0.0, 2 * total))


def chi_squared_survival(value: float, degrees_of_freedom: int) -> float:
    """Compute the probability that chi-squared with so many degrees of freedom exceeds `value`.

    This is the upper incomplete gamma function Q(degrees_of_freedom / 2, value / 2) by the recurrence Q(a + 1, x) =
    Q(a, x) + x^a exp(-x) / Gamma(a + 1), from Q(1/2, x) = erfc(sqrt(x)) or Q(1, x) = exp(-x) (Abramowitz and Stegun,
    6.5.21).
    """
    x = value / 2
    if x <= 0:
        return 1.0
    a, total = (0.5, math.erfc(math.sqrt(x))) if degrees_of_freedom % 2 else (1.0, math.exp(-x))
    while a < degrees_of_freedom / 2:
        total += math.exp(a * math.log(x) - x - math.lgamma(a + 1))
        a += 1
    return min(1.0, total)


def group_bins(counts: Sequence[int], group_count: int = GROUP_COUNT) -> list[tuple[int, int]]:
    """Merge neighbouring bins until each group has its share of the counts, and return slices; the last may have less.

    A rest of less than half a share goes to the group before it.
    """
    total, share = sum(counts), sum(counts) / group_count
    bounds, held, seen = [0], 0, 0
    for place, count in enumerate(counts, 1):
        held, seen = held + count, seen + count
        if held >= share * (1 - 1e-9) and total - seen >= share / 2:
            bounds.append(place)
            held = 0
    return [(begin, end) for begin, end in pairwise([*bounds, len(counts)]) if begin < end]


def merge_counts(counts: Sequence[int] | Array, slices: Sequence[tuple[int, int]]) -> Array:
    """Sum the counts of each group."""
    whole = np.asarray(counts, np.int64)
    return np.array([whole[begin:end].sum() for begin, end in slices], np.int64)
