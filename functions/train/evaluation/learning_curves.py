"""The learning curves of a run as a picture, drawn without a display and without pyplot's global state."""

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from functions.train.training.epoch import Epoch, History

# Told apart by colour-blind readers: Okabe and Ito, Color Universal Design, 2008.
GREY, VERMILION, BLUE = "#8a8f98", "#d55e00", "#0072b2"
TRAIN, VALIDATION, RATE = GREY, VERMILION, BLUE
MOST_DOTS = 60  # epochs
SIZE_IN, DOTS_PER_IN = (8, 8.5), 110


def draw(history: History, title: str) -> bytes:
    """A PNG of loss, metric and learning rate over the epochs, with the epoch whose weights were kept marked."""
    figure = Figure(figsize=SIZE_IN, layout="constrained")
    figure.suptitle(title, fontweight="bold")
    losses, accuracies, rates = figure.subplots(3, sharex=True, height_ratios=(3, 3, 1.4))
    draw_losses(losses, history)
    draw_accuracies(accuracies, history)
    draw_rates(rates, history)
    for axes in (losses, accuracies, rates):
        finish(axes, history)
    figure.align_ylabels()
    return png(figure)


def draw_losses(axes: Axes, history: History) -> None:
    """Cross-entropy or squared error; logarithmic, since it falls by orders of magnitude."""
    pair(axes, history, "train_loss", "validation_loss")
    mark(axes, history.best, history.best.validation_loss, f"{history.best.validation_loss:.3g}")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("cross-entropy (nats)" if shares(history) else "squared error (variances)")


def draw_accuracies(axes: Axes, history: History) -> None:
    """The share of right answers, or R2; from zero, since R2 starts far below it."""
    pair(axes, history, "train_accuracy", "validation_accuracy")
    kept = history.best.validation_accuracy
    mark(axes, history.best, kept, f"{kept:.1%}" if shares(history) else f"{kept:.3f}")
    if shares(history):
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    else:
        axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]), top=1)
    axes.set_ylabel(history.best.metric)


def shares(history: History) -> bool:
    """Whether the metric is a share of right classes, and not a number's R2."""
    return history.best.metric == "accuracy"


def draw_rates(axes: Axes, history: History) -> None:
    """The schedule, at each epoch's last step."""
    numbers = [epoch.number for epoch in history.epochs]
    axes.plot(numbers, [epoch.learning_rate for epoch in history.epochs], style(history), color=RATE)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("learning rate")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def pair(axes: Axes, history: History, train: str, validation: str) -> None:
    """A figure of the epochs in training, where dropout is on, and in validation."""
    numbers = [epoch.number for epoch in history.epochs]
    training = [getattr(epoch, train) for epoch in history.epochs]
    axes.plot(numbers, training, style(history), color=TRAIN, label="training, dropout on")
    judged = [getattr(epoch, validation) for epoch in history.epochs]
    axes.plot(numbers, judged, style(history), color=VALIDATION, label="validation")


def style(history: History) -> str:
    """A line, and a dot for each epoch as long as dots can be told apart."""
    return ".-" if len(history.epochs) <= MOST_DOTS else "-"


def mark(axes: Axes, best: Epoch, value: float, text: str) -> None:
    """Ring the value of the epoch whose weights were kept, and say it in the legend, where it never hides a curve."""
    label = f"kept: epoch {best.number}, {text}"
    axes.plot(best.number, value, "o", label=label, color=VALIDATION, fillstyle="none", markersize=10)
    axes.legend(frameon=False, loc="best")


def finish(axes: Axes, history: History) -> None:
    """What the three have in common: whole epochs, the kept one marked, a quiet grid and no box."""
    axes.axvline(history.best.number, color=VALIDATION, linestyle=":", linewidth=1, zorder=0)
    axes.set_xlim(0.5, len(history.epochs) + 0.5)
    plain(axes)


def plain(axes: Axes) -> None:
    """A quiet grid behind what is drawn, and no box around it."""
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def png(figure: Figure) -> bytes:
    """The figure's file, without the name and version of the software in it."""
    target = io.BytesIO()
    kept: dict[str, Any] = {"metadata": {"Software": None}, "pil_kwargs": {"optimize": True}}
    figure.savefig(target, format="png", dpi=DOTS_PER_IN, bbox_inches="tight", **kept)
    return target.getvalue()
