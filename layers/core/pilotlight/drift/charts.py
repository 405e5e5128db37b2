"""Draw two histograms, training and now, as bars side by side: for a terminal and for a picture.

Bins are quantiles, so bars of their counts would all be alike; here the counts are spread over columns of equal width.
"""

import numpy as np
from msgspec import Struct

from pilotlight.contracts.feature_profile import CategoricalHistogram, Histogram, NumericHistogram
from pilotlight.drift.comparison import DriftLevel
from pilotlight.drift.report import DriftAnalysis
from pilotlight.runtime.datatypes import Array

COLUMNS = 32  # over the range of a number
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
    """Build a panel for every feature and every part of the answers, the most changed first."""
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
    """Format both histograms as rows, training above now."""
    one, other = compute_column_shares(before, before), compute_column_shares(now, before)
    if isinstance(before, CategoricalHistogram):
        return format_category_bars((*before.names, "others"), one, other)
    low, high = get_value_range(before)
    rows = [f"{word:>9} │{format_blocks(each)}│" for word, each in (("training", one), ("now", other))]
    width = len(one) - 2
    scale = f"{low:.4g}".ljust(width - 8) + f"{high:.4g}".rjust(8)
    return [*rows, f"{'':>11}<{scale}>" if width > 8 else ""]


def format_category_bars(labels: tuple[str, ...], before: Array, now: Array) -> list[str]:
    """Format two bars for each of the most frequent categories."""
    highest = max(float(before.max(initial=0)), float(now.max(initial=0))) or 1.0
    shown = sorted(np.argsort(-(before + now), kind="stable")[:MAX_DRAWN_CATEGORIES].tolist())
    rows: list[str] = []
    for place in shown:
        for word, mark, share in ((labels[place][:LABEL_WIDTH], "░", before[place]), ("", "█", now[place])):
            if before[place] or now[place]:
                rows.append(f"{word:>{LABEL_WIDTH}} │{mark * round(BAR_WIDTH * share / highest)} {share:.1%}")
    return [*rows, f"{'':>{LABEL_WIDTH}}  ░ training, █ now"]


def format_blocks(shares: Array) -> str:
    """Format shares as a row of block characters, the highest one full; any share above 0 is visible."""
    heights = np.ceil(shares / (shares.max(initial=0) or 1.0) * (len(BLOCKS) - 1)).astype(int)
    return "".join(BLOCKS[height] for height in heights)


def get_value_range(histogram: Histogram) -> tuple[float, float]:
    """Return the range of the training values; 0, 0 for categories."""
    if isinstance(histogram, CategoricalHistogram) or not histogram.edges:
        return 0.0, 0.0
    return histogram.edges[min(1, len(histogram.edges) - 1)], histogram.edges[-1]


def compute_column_shares(histogram: Histogram, reference: Histogram) -> Array:
    """Compute the shares of equally wide columns over `reference`'s range and beyond each end; or of categories."""
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
    inner[0] = counts[0]  # the least value is inside the range
    return np.asarray(np.concatenate([[counts[0]], np.diff(inner), [counts[-1]]]) / total)


def cumulate_counts(histogram: NumericHistogram) -> tuple[Array, Array]:
    """Return the edges, and the number of values at most as large as each."""
    edges = np.array(histogram.edges, np.float64)
    return edges, np.cumsum(np.array(histogram.counts[:-1], np.float64))
