"""The learning curves of a run as a picture, drawn without a display and without pyplot's global state."""

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from functions.train.training.training_history import EpochMetrics, TrainingHistory

# Distinct for colour-blind readers: Okabe and Ito, Color Universal Design, 2008.
GREY, VERMILION, BLUE = "#8a8f98", "#d55e00", "#0072b2"
TRAIN_COLOUR, VALIDATION_COLOUR, RATE_COLOUR = GREY, VERMILION, BLUE
MAX_DOTS = 60  # epochs
FIGURE_SIZE_IN, DOTS_PER_IN = (8, 8.5), 110


def draw_learning_curves(history: TrainingHistory, title: str) -> bytes:
    """Draw a PNG of loss, metric and learning rate over the epochs, with the epoch marked whose weights were kept."""
    figure = Figure(figsize=FIGURE_SIZE_IN, layout="constrained")
    figure.suptitle(title, fontweight="bold")
    losses, accuracies, rates = figure.subplots(3, sharex=True, height_ratios=(3, 3, 1.4))
    draw_losses(losses, history)
    draw_accuracies(accuracies, history)
    draw_rates(rates, history)
    for axes in (losses, accuracies, rates):
        finish_axes(axes, history)
    figure.align_ylabels()
    return render_png(figure)


def draw_losses(axes: Axes, history: TrainingHistory) -> None:
    """Draw the cross-entropy or squared error, on a logarithmic axis, since it falls by orders of magnitude."""
    draw_train_and_validation(axes, history, "train_loss", "validation_loss")
    mark_best_epoch(
        axes, history.best_epoch, history.best_epoch.validation_loss, f"{history.best_epoch.validation_loss:.3g}"
    )
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("cross-entropy (nats)" if has_accuracy_metric(history) else "squared error (variances)")


def draw_accuracies(axes: Axes, history: TrainingHistory) -> None:
    """Draw the share of right predictions, or R2, from zero, since R2 starts far below it."""
    draw_train_and_validation(axes, history, "train_accuracy", "validation_accuracy")
    best_accuracy = history.best_epoch.validation_accuracy
    mark_best_epoch(
        axes,
        history.best_epoch,
        best_accuracy,
        f"{best_accuracy:.1%}" if has_accuracy_metric(history) else f"{best_accuracy:.3f}",
    )
    if has_accuracy_metric(history):
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    else:
        axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]), top=1)
    axes.set_ylabel(history.best_epoch.metric)


def has_accuracy_metric(history: TrainingHistory) -> bool:
    """Return whether the metric is a share of right classes, and not a number's R2."""
    return history.best_epoch.metric == "accuracy"


def draw_rates(axes: Axes, history: TrainingHistory) -> None:
    """Draw the learning rate at each epoch's last step."""
    numbers = [epoch.number for epoch in history.epochs]
    axes.plot(numbers, [epoch.learning_rate for epoch in history.epochs], choose_line_style(history), color=RATE_COLOUR)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("learning rate")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def draw_train_and_validation(axes: Axes, history: TrainingHistory, train: str, validation: str) -> None:
    """Draw a value of the epochs in training, where dropout is on, and in validation."""
    numbers = [epoch.number for epoch in history.epochs]
    training = [getattr(epoch, train) for epoch in history.epochs]
    axes.plot(numbers, training, choose_line_style(history), color=TRAIN_COLOUR, label="training, dropout on")
    validation_values = [getattr(epoch, validation) for epoch in history.epochs]
    axes.plot(numbers, validation_values, choose_line_style(history), color=VALIDATION_COLOUR, label="validation")


def choose_line_style(history: TrainingHistory) -> str:
    """Choose a line, with a dot for each epoch while there are few enough to distinguish."""
    return ".-" if len(history.epochs) <= MAX_DOTS else "-"


def mark_best_epoch(axes: Axes, best: EpochMetrics, value: float, text: str) -> None:
    """Ring the value of the epoch whose weights were kept, and label it in the legend, where it never hides a curve."""
    label = f"kept: epoch {best.number}, {text}"
    axes.plot(best.number, value, "o", label=label, color=VALIDATION_COLOUR, fillstyle="none", markersize=10)
    axes.legend(frameon=False, loc="best")


def finish_axes(axes: Axes, history: TrainingHistory) -> None:
    """Finish each of the three plots: whole epochs, the kept one marked, a light grid and no box."""
    axes.axvline(history.best_epoch.number, color=VALIDATION_COLOUR, linestyle=":", linewidth=1, zorder=0)
    axes.set_xlim(0.5, len(history.epochs) + 0.5)
    simplify_axes(axes)


def simplify_axes(axes: Axes) -> None:
    """Draw a light grid behind the curves, and no box around them."""
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def escape_formulas(text: str) -> str:
    """Escape what matplotlib would take for a formula: names come from people's tables."""
    return text.replace("$", r"\$")


def render_png(figure: Figure) -> bytes:
    """Render the figure as PNG, without the name and version of the software in it."""
    target = io.BytesIO()
    savefig_options: dict[str, Any] = {"metadata": {"Software": None}, "pil_kwargs": {"optimize": True}}
    figure.savefig(target, format="png", dpi=DOTS_PER_IN, bbox_inches="tight", **savefig_options)
    return target.getvalue()
