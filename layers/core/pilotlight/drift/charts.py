"""Histograms as bars that stand side by side: then and now, for a terminal and for a picture.

Bins are quantiles, so bars of their counts would all be alike; here they are spread over columns of equal width.
"""

import numpy as np
from msgspec import Struct

from pilotlight.contracts.feature_profile import CategoricalHistogram, Histogram, NumericHistogram
from pilotlight.drift.comparison import DriftLevel
from pilotlight.drift.report import DriftAnalysis
from pilotlight.runtime.datatypes import Array

COLUMNS = 32  # of a number's range
BLOCKS = " ▁▂▃▄▅▆▇█"
BAR_WIDTH = 40  # characters of the longest bar of categories
MAX_DRAWN_CATEGORIES = 12  # categories that are drawn
LABEL_WIDTH = 16  # characters of a category's name


class ChartPanel(Struct, frozen=True):
    """One feature, ready to be drawn."""

    name: str
    part: str
    verdict: DriftLevel
    psi: float
    labels: tuple[str, ...]  # of categories
    low: float  # of numbers: the ends of the range
    high: float
    before: tuple[float, ...]  # share of each column
    now: tuple[float, ...]


def build_panels(analysis: DriftAnalysis) -> list[ChartPanel]:
    """Every feature and every part of the answers, the most changed first."""
    made = []
    for one in analysis.report.comparisons_by_severity:
        feature = one.part == "feature"
        before = (analysis.profile.features if feature else analysis.profile.answers)[one.name]
        now = (analysis.aggregator.features if feature else analysis.aggregator.answers)[one.name]
        low, high = get_value_range(before)
        bars = [tuple(compute_column_shares(each, before).round(6).tolist()) for each in (before, now)]
        labels = (*before.names, "others") if isinstance(before, CategoricalHistogram) else ()
        made.append(ChartPanel(one.name, one.part, one.verdict, one.psi, labels, low, high, *bars))
    return made


def format_chart(before: Histogram, now: Histogram) -> list[str]:
    """Then and now, one above the other."""
    one, other = compute_column_shares(before, before), compute_column_shares(now, before)
    if isinstance(before, CategoricalHistogram):
        return format_category_bars((*before.names, "others"), one, other)
    low, high = get_value_range(before)
    rows = [f"{word:>9} │{format_blocks(each)}│" for word, each in (("training", one), ("now", other))]
    width = len(one) - 2
    scale = f"{low:.4g}".ljust(width - 8) + f"{high:.4g}".rjust(8)
    return [*rows, f"{'':>11}<{scale}>" if width > 8 else ""]


def format_category_bars(labels: tuple[str, ...], before: Array, now: Array) -> list[str]:
    """Two bars for each category, the most frequent ones."""
    highest = max(float(before.max(initial=0)), float(now.max(initial=0))) or 1.0
    shown = sorted(np.argsort(-(before + now), kind="stable")[:MAX_DRAWN_CATEGORIES].tolist())
    rows: list[str] = []
    for place in shown:
        for word, mark, share in ((labels[place][:LABEL_WIDTH], "░", before[place]), ("", "█", now[place])):
            if before[place] or now[place]:
                rows.append(f"{word:>{LABEL_WIDTH}} │{mark * round(BAR_WIDTH * share / highest)} {share:.1%}")
    return [*rows, f"{'':>{LABEL_WIDTH}}  ░ training, █ now"]


def format_blocks(shares: Array) -> str:
    """A row of characters, the highest one full; what is there at all is seen."""
    heights = np.ceil(shares / (shares.max(initial=0) or 1.0) * (len(BLOCKS) - 1)).astype(int)
    return "".join(BLOCKS[height] for height in heights)


def get_value_range(histogram: Histogram) -> tuple[float, float]:
    """The range that training saw; of categories none."""
    if isinstance(histogram, CategoricalHistogram) or not histogram.edges:
        return 0.0, 0.0
    return histogram.edges[min(1, len(histogram.edges) - 1)], histogram.edges[-1]


def compute_column_shares(histogram: Histogram, reference: Histogram) -> Array:
    """Shares of equally wide columns over the range of `reference`, and of all beyond each end; or of categories."""
    counts = np.array(histogram.counts, np.float64)
    total = counts.sum() or 1.0
    if (
        isinstance(histogram, CategoricalHistogram)
        or not isinstance(reference, NumericHistogram)
        or not reference.edges
    ):
        return np.asarray(counts / total)
    low, high = get_value_range(reference)
    if low == high:
        return np.asarray(np.array([counts[0], counts[1:-1].sum(), counts[-1]]) / total)
    inner = np.interp(np.linspace(low, high, COLUMNS + 1), *cumulate_counts(histogram))
    inner[0] = counts[0]  # the least value itself is inside
    return np.asarray(np.concatenate([[counts[0]], np.diff(inner), [counts[-1]]]) / total)


def cumulate_counts(histogram: NumericHistogram) -> tuple[Array, Array]:
    """How many are at most each edge, from below the least to the most."""
    edges = np.array(histogram.edges, np.float64)
    return edges, np.cumsum(np.array(histogram.counts[:-1], np.float64))
