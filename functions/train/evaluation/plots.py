"""What the served variant does on the test set, as pictures: confusions and reliability, or numbers against the truth.

It draws what `report.json` says, and asks the graph again only for the single numbers that a report has no room for.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from functions.train.data.dataset import Array, Dataset
from functions.train.evaluation.diagnostics import (
    Bin,
    Calibration,
    Classification,
    ClassQuality,
    Confusion,
    Regression,
    wilson,
)
from functions.train.evaluation.learning_curves import BLUE, GREY, VERMILION, plain, png
from functions.train.evaluation.quantization_report import Report
from functions.train.export.graph import ask
from pilotlight.runtime.session import open_session

MOST_CELLS = 30  # classes whose matrix can still be read; above, the worst confusions are listed
BOTH = 12  # classes up to which a cell has room for its count and its share
LONGEST = 24  # characters of a class's name


def draw(report: Report, graph: Path, test: Dataset, name: str) -> dict[str, bytes]:
    """PNGs by file name, of what the report's diagnosis holds: none where it holds nothing."""
    found = report.diagnosis
    drawn = {}
    title = f"{name} ({report.serve}), {len(test):,} test examples"
    if kind := found.classification:
        drawn["confusion.png"] = confusions(kind, title)
        drawn["calibration.png"] = reliability(kind.calibration, title)
    if found.regression:
        answers = ask(open_session(str(graph)), test.inputs)
        drawn["predictions.png"] = predictions(answers[:, 0], test.targets[:, 0], found.regression, title)
    return drawn


def confusions(found: Classification, title: str) -> bytes:
    """The matrix, or where it has too many classes to be read the largest mistakes."""
    right = found.calibration.accuracy
    interval = f"95 % interval {found.accuracy.low:.1%} to {found.accuracy.high:.1%}"
    heading = f"{title}\n{right:.1%} right, {interval}"
    if len(found.classes) > MOST_CELLS:
        return bars(found.worst, heading)
    return matrix(np.array(found.confusion), found.classes, heading)


def matrix(counts: Array, classes: Sequence[ClassQuality], title: str) -> bytes:
    """Counts in cells, coloured by the share of the row: of one class's examples, what was made of them."""
    number = len(classes)
    side = 2.6 + 0.52 * number if number <= BOTH else 4 + 0.3 * number
    figure = Figure(figsize=(side + 1.8, side), layout="constrained")
    figure.suptitle(title, fontweight="bold", fontsize=11)
    axes = figure.subplots()
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    cells(axes, counts, shares)
    names = [short(one.name) for one in classes]
    crowded = number > BOTH or max(map(len, names)) > 3
    axes.set_xticks(range(number), names, rotation=45 if crowded else 0, ha="right" if crowded else "center")
    axes.set_yticks(range(number), [f"{name}  (n={one.support})" for name, one in zip(names, classes, strict=True)])
    axes.set_xlabel("answer")
    axes.set_ylabel("actual class")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    legend = figure.colorbar(image, ax=axes, shrink=0.7, format=PercentFormatter(1), label="share of the actual class")
    legend.outline.set_visible(False)
    return png(figure)


def cells(axes: Axes, counts: Array, shares: Array) -> None:
    """The number in each cell that has one, and its share below where there is room."""
    both = len(counts) <= BOTH
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = shares[row, column]
        text = f"{counts[row, column]}\n{share:.0%}" if both else f"{counts[row, column]}"
        colour = "white" if share > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8 if both else 7)


def bars(worst: Sequence[Confusion], title: str) -> bytes:
    """The largest mistakes, the largest on top."""
    figure = Figure(figsize=(8, 1.8 + 0.3 * max(4, len(worst))), layout="constrained")
    figure.suptitle(title, fontweight="bold", fontsize=11)
    axes = figure.subplots()
    shown = worst[::-1]
    lengths = [one.share for one in shown]
    labels = [f"{short(one.actual)} taken for {short(one.taken_for)}" for one in shown]
    for number, one in enumerate(shown):
        axes.text(one.share, number, f" {one.count}", va="center", fontsize=8)
    axes.barh(range(len(shown)), lengths, color=BLUE)
    axes.set_yticks(range(len(shown)), labels)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_title(f"the {len(shown)} most frequent of all confusions", fontsize=9)
    axes.set_xlabel("share of the actual class's examples; at its end how many they are")
    axes.margins(x=0.08)
    if not shown:
        axes.text(0.5, 0.5, "no example was taken for another class", transform=axes.transAxes, ha="center")
    plain(axes)
    return png(figure)


def reliability(found: Calibration, title: str) -> bytes:
    """How often answers are right against how sure they are, and how many are how sure."""
    figure = Figure(figsize=(6.4, 7), layout="constrained")
    figure.suptitle(f"{title}\nexpected calibration error {found.ece:.1%}", fontweight="bold", fontsize=11)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    filled = [one for one in found.bins if one.count]
    diagonal(upper)
    for one in filled:  # bins with few answers have a wide interval
        known = wilson(round(one.accuracy * one.count), one.count)
        upper.plot([one.confidence] * 2, [known.low, known.high], color=BLUE, alpha=0.35, linewidth=3)
    upper.plot([one.confidence for one in filled], [one.accuracy for one in filled], "o", color=BLUE, zorder=3)
    upper.set_ylabel("share of right answers")
    upper.set_ylim(-0.03, 1.05)
    upper.set_title(
        "dots: the answers of each bin, with their 95 % interval; dashed: confidence that holds", fontsize=8
    )
    upper.yaxis.set_major_formatter(PercentFormatter(1))
    histogram(lower, found.bins)
    mean = "overconfident" if found.confidence > found.accuracy else "underconfident"
    gap = abs(found.confidence - found.accuracy)
    lower.set_xlabel(
        f"confidence: probability of the answer\nmean {found.confidence:.1%}, right {found.accuracy:.1%}: "
        f"{mean} by {100 * gap:.1f} points"
    )
    for axes in (upper, lower):
        plain(axes)
    return png(figure)


def diagonal(axes: Axes) -> None:
    """Where a confidence would be a probability, with what is amiss on either side of it."""
    axes.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
    axes.text(0.04, 0.95, "underconfident", color=GREY, va="top", fontsize=9)
    axes.text(0.96, 0.05, "overconfident", color=GREY, ha="right", fontsize=9)


def histogram(axes: Axes, bins: Sequence[Bin]) -> None:
    """How many answers are in each bin, logarithmic: most are in the last."""
    width = bins[0].high - bins[0].low
    axes.bar([one.low for one in bins], [one.count for one in bins], width, align="edge", color=BLUE, edgecolor="white")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("answers")
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))


def predictions(answers: Array, truth: Array, found: Regression, title: str) -> bytes:
    """Answers against the truth, and what is left between them against the answer."""
    figure = Figure(figsize=(10.5, 5), layout="constrained")
    spread = f"standard deviation {found.deviation:.3g} (truth's {found.spread:.3g})"
    error = f"residuals {found.bias:+.3g} on average, {spread}"
    figure.suptitle(f"{title}\n{error}, in the target's unit", fontweight="bold", fontsize=11)
    left, right = figure.subplots(1, 2)
    ends = [float(min(answers.min(), truth.min())), float(max(answers.max(), truth.max()))]
    left.plot(ends, ends, "--", color=GREY, linewidth=1)
    left.scatter(truth, answers, s=16, color=BLUE, alpha=0.6, linewidths=0)
    left.set_xlabel("truth")
    left.set_ylabel("answer")
    left.set_aspect("equal")
    left.set_title("dashed: answer = truth", fontsize=9)
    right.axhline(0, color=GREY, linestyle="--", linewidth=1)
    right.scatter(answers, answers - truth, s=16, color=BLUE, alpha=0.6, linewidths=0)
    for share in ("5%", "95%"):
        right.axhline(found.quantiles[share], color=VERMILION, linestyle=":", linewidth=1.5)
    right.set_title("nine of ten residuals lie between the dotted lines", fontsize=9)
    right.set_xlabel("answer")
    right.set_ylabel("residual: answer minus truth")
    for axes in (left, right):
        plain(axes)
    return png(figure)


def short(name: str) -> str:
    """A class's name that leaves room for the others, and is no formula to matplotlib."""
    cut = name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
    return cut.replace("$", r"\$")
