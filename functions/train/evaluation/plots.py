"""The results of the served variant on the test set as pictures: confusions and calibration, or predicted numbers.

The plots draw what is in `report.json`, and run the graph only for the single predictions, which are not in it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.evaluation.diagnostics import (
    ClassificationDiagnosis,
    ClassQuality,
    ConfidenceBin,
    ConfidenceCalibration,
    Confusion,
    RegressionDiagnosis,
    compute_wilson_interval,
)
from functions.train.evaluation.graphs import predict_answers
from functions.train.evaluation.learning_curves import (
    BLUE,
    GREY,
    VERMILION,
    escape_formulas,
    render_png,
    simplify_axes,
)
from functions.train.evaluation.quantization_report import QuantizationReport
from pilotlight.drift.training_profile import sample_row_indices
from pilotlight.runtime.session import open_session

MAX_READABLE_CLASSES = 30  # classes whose matrix can still be read; above, the worst confusions are listed
MAX_CLASSES_WITH_SHARES = 12  # classes up to which a cell has room for its count and its share
MAX_POINTS = 20_000  # examples in a scatter plot, evenly spaced; its numbers are of all of them
MAX_NAME_LENGTH = 24  # characters of a class's name


def draw_diagnosis_plots(report: QuantizationReport, graph: Path, test: Dataset, name: str) -> dict[str, bytes]:
    """Draw the report's diagnosis as PNGs by file name; none where the diagnosis is empty."""
    diagnosis = report.diagnosis
    plot_files = {}
    title = f"{name} ({report.serve}), {len(test):,} test examples"
    if kind := diagnosis.classification:
        plot_files["confusion.png"] = draw_confusions(kind, title)
        plot_files["calibration.png"] = draw_reliability_diagram(kind.calibration, title)
    if diagnosis.regression:
        shown = sample_row_indices(len(test), MAX_POINTS)
        answers = predict_answers(open_session(str(graph)), test.inputs[shown])
        plot_files["predictions.png"] = draw_prediction_scatter(
            answers[:, 0], test.targets[shown, 0], diagnosis.regression, title
        )
    return plot_files


def draw_confusions(diagnosis: ClassificationDiagnosis, title: str) -> bytes:
    """Draw the matrix, or where it has too many classes to be readable the largest confusions."""
    right = diagnosis.calibration.accuracy
    interval = f"95 % interval {diagnosis.accuracy.low:.1%} to {diagnosis.accuracy.high:.1%}"
    heading = f"{title}\n{right:.1%} right, {interval}"
    if len(diagnosis.classes) > MAX_READABLE_CLASSES:
        return draw_confusion_bars(diagnosis.worst, heading)
    return draw_confusion_matrix(np.array(diagnosis.confusion), diagnosis.classes, heading)


def draw_confusion_matrix(counts: Array, classes: Sequence[ClassQuality], title: str) -> bytes:
    """Draw counts in cells, coloured by the share of the row: of one class's examples."""
    number = len(classes)
    side = 2.6 + 0.52 * number if number <= MAX_CLASSES_WITH_SHARES else 4 + 0.3 * number
    figure = Figure(figsize=(side + 1.8, side), layout="constrained")
    figure.suptitle(title, fontweight="bold", fontsize=11)
    axes = figure.subplots()
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    annotate_cells(axes, counts, shares)
    names = [shorten_class_name(one.name) for one in classes]
    crowded = number > MAX_CLASSES_WITH_SHARES or max(map(len, names)) > 3
    axes.set_xticks(range(number), names, rotation=45 if crowded else 0, ha="right" if crowded else "center")
    axes.set_yticks(range(number), [f"{name}  (n={one.support})" for name, one in zip(names, classes, strict=True)])
    axes.set_xlabel("answer")
    axes.set_ylabel("actual class")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    legend = figure.colorbar(image, ax=axes, shrink=0.7, format=PercentFormatter(1), label="share of the actual class")
    legend.outline.set_visible(False)
    return render_png(figure)


def annotate_cells(axes: Axes, counts: Array, shares: Array) -> None:
    """Write the number into each cell that has one, and its share below where there is room."""
    both = len(counts) <= MAX_CLASSES_WITH_SHARES
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = shares[row, column]
        text = f"{counts[row, column]}\n{share:.0%}" if both else f"{counts[row, column]}"
        colour = "white" if share > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8 if both else 7)


def draw_confusion_bars(worst: Sequence[Confusion], title: str) -> bytes:
    """Draw the largest confusions, the largest on top."""
    figure = Figure(figsize=(8, 1.8 + 0.3 * max(4, len(worst))), layout="constrained")
    figure.suptitle(title, fontweight="bold", fontsize=11)
    axes = figure.subplots()
    confusions = worst[::-1]
    lengths = [one.share for one in confusions]
    labels = [f"{shorten_class_name(one.actual)} taken for {shorten_class_name(one.taken_for)}" for one in confusions]
    for number, one in enumerate(confusions):
        axes.text(one.share, number, f" {one.count}", va="center", fontsize=8)
    axes.barh(range(len(confusions)), lengths, color=BLUE)
    axes.set_yticks(range(len(confusions)), labels)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_title(f"the {len(confusions)} most frequent of all confusions", fontsize=9)
    axes.set_xlabel("share of the actual class's examples; at its end how many they are")
    axes.margins(x=0.08)
    if not confusions:
        axes.text(0.5, 0.5, "no example was taken for another class", transform=axes.transAxes, ha="center")
    simplify_axes(axes)
    return render_png(figure)


def draw_reliability_diagram(calibration: ConfidenceCalibration, title: str) -> bytes:
    """Draw accuracy against confidence, and the number of predictions at each confidence."""
    figure = Figure(figsize=(6.4, 7), layout="constrained")
    figure.suptitle(f"{title}\nexpected calibration error {calibration.ece:.1%}", fontweight="bold", fontsize=11)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    filled = [one for one in calibration.bins if one.count]
    draw_diagonal(upper)
    for one in filled:  # bins with few answers have a wide interval
        interval = compute_wilson_interval(round(one.accuracy * one.count), one.count)
        upper.plot([one.confidence] * 2, [interval.low, interval.high], color=BLUE, alpha=0.35, linewidth=3)
    upper.plot([one.confidence for one in filled], [one.accuracy for one in filled], "o", color=BLUE, zorder=3)
    upper.set_ylabel("share of right answers")
    upper.set_ylim(-0.03, 1.05)
    upper.set_title(
        "dots: the answers of each bin, with their 95 % interval; dashed: confidence that holds", fontsize=8
    )
    upper.yaxis.set_major_formatter(PercentFormatter(1))
    draw_confidence_histogram(lower, calibration.bins)
    mean = "overconfident" if calibration.confidence > calibration.accuracy else "underconfident"
    gap = abs(calibration.confidence - calibration.accuracy)
    lower.set_xlabel(
        f"confidence: probability of the answer\nmean {calibration.confidence:.1%}, right {calibration.accuracy:.1%}: "
        f"{mean} by {100 * gap:.1f} points"
    )
    for axes in (upper, lower):
        simplify_axes(axes)
    return render_png(figure)


def draw_diagonal(axes: Axes) -> None:
    """Draw the diagonal on which a confidence is a probability, with a label on either side."""
    axes.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
    axes.text(0.04, 0.95, "underconfident", color=GREY, va="top", fontsize=9)
    axes.text(0.96, 0.05, "overconfident", color=GREY, ha="right", fontsize=9)


def draw_confidence_histogram(axes: Axes, bins: Sequence[ConfidenceBin]) -> None:
    """Draw the number of predictions in each bin, on a logarithmic axis: most are in the last."""
    width = bins[0].high - bins[0].low
    axes.bar([one.low for one in bins], [one.count for one in bins], width, align="edge", color=BLUE, edgecolor="white")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("answers")
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))


def draw_prediction_scatter(answers: Array, truth: Array, diagnosis: RegressionDiagnosis, title: str) -> bytes:
    """Draw predictions against the truth, and residuals against the prediction."""
    figure = Figure(figsize=(10.5, 5), layout="constrained")
    spread = f"standard deviation {diagnosis.deviation:.3g} (truth's {diagnosis.spread:.3g})"
    error = f"residuals {diagnosis.bias:+.3g} on average, {spread}"
    figure.suptitle(f"{title}\n{error}, in the target's unit", fontweight="bold", fontsize=11)
    left, right = figure.subplots(1, 2)
    limits = [float(min(answers.min(), truth.min())), float(max(answers.max(), truth.max()))]
    left.plot(limits, limits, "--", color=GREY, linewidth=1)
    left.scatter(truth, answers, s=16, color=BLUE, alpha=0.6, linewidths=0)
    left.set_xlabel("truth")
    left.set_ylabel("answer")
    left.set_aspect("equal")
    left.set_title("dashed: answer = truth", fontsize=9)
    right.axhline(0, color=GREY, linestyle="--", linewidth=1)
    right.scatter(answers, answers - truth, s=16, color=BLUE, alpha=0.6, linewidths=0)
    for share in ("5%", "95%"):
        right.axhline(diagnosis.quantiles[share], color=VERMILION, linestyle=":", linewidth=1.5)
    right.set_title("nine of ten residuals lie between the dotted lines", fontsize=9)
    right.set_xlabel("answer")
    right.set_ylabel("residual: answer minus truth")
    for axes in (left, right):
        simplify_axes(axes)
    return render_png(figure)


def shorten_class_name(name: str) -> str:
    """Shorten a class's name to leave room for the others, and escape formulas of matplotlib."""
    cut = name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + "…"
    return escape_formulas(cut)
