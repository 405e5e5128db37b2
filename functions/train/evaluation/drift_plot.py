"""Draw training and now: `python -m functions.train.evaluation.drift_plot --into FILE`, for `pilotlight drift`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from functions.train.evaluation.learning_curves import BLUE, GREY, VERMILION, escape_formulas, render_png
from pilotlight.drift.charts import ChartPanel

PANELS_PER_ROW = 4  # panels in a row
MAX_BAR_RATIO = 3  # times the highest bar of training: what is far beyond its range would flatten all else
PANEL_SIZE_IN = (3.2, 2.2)
TITLE_COLOURS = {"drifted": VERMILION, "changed": "#e69f00"}  # of the title; Okabe and Ito


def main(arguments: Sequence[str] | None = None) -> int:
    """Read panels from standard input and write the picture; return 2 where it cannot be written."""
    parser = argparse.ArgumentParser(
        prog="python -m functions.train.evaluation.drift_plot", description="Draw a drift report."
    )
    parser.add_argument("--into", type=Path, required=True, metavar="FILE")
    file: Path = parser.parse_args(arguments).into
    panels = msgspec.json.decode(sys.stdin.buffer.read(), type=list[ChartPanel])
    try:
        file.write_bytes(draw_drift_plot(panels))
    except OSError as exc:
        sys.stderr.write(f"Cannot write {file}: {exc.strerror}.\n")
        return 2
    return 0


def draw_drift_plot(panels: Sequence[ChartPanel]) -> bytes:
    """Draw a PNG with a panel for each feature and each part of the predictions."""
    row_count = max(1, -(-len(panels) // PANELS_PER_ROW))
    figure = Figure(
        figsize=(PANELS_PER_ROW * PANEL_SIZE_IN[0], row_count * PANEL_SIZE_IN[1] + 0.4), layout="constrained"
    )
    figure.suptitle("grey: training, blue: now", fontsize=10)
    grid = np.ravel(figure.subplots(row_count, PANELS_PER_ROW, squeeze=False))
    for axes, panel in zip(grid, panels, strict=False):
        draw_panel(axes, panel)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return render_png(figure)


def draw_panel(axes: Axes, panel: ChartPanel) -> None:
    """Draw bars of training and of now; of numbers, the outermost are all values beyond the range of training."""
    if panel.labels:
        places = np.arange(len(panel.labels))
        axes.bar(places - 0.2, panel.before, 0.4, color=GREY)
        axes.bar(places + 0.2, panel.now, 0.4, color=BLUE)
        axes.set_xticks(places, [escape_formulas(label[:12]) for label in panel.labels], fontsize=6, rotation=30)
    else:
        width = (panel.high - panel.low) / max(1, len(panel.before) - 2) or 1.0
        middles = panel.low + width * (np.arange(len(panel.before)) - 0.5)
        axes.bar(middles, panel.before, width, color=GREY, alpha=0.6)
        axes.set_ylim(0, 1.05 * min(max(*panel.before, *panel.now), MAX_BAR_RATIO * max(panel.before)) or 1.0)
        axes.step(middles, panel.now, where="mid", color=BLUE, linewidth=1.2)
    title = panel.name if panel.part == "feature" else f"answer: {panel.name}"
    said = f"{escape_formulas(title)}\n{panel.verdict}, PSI {panel.psi:.3f}"
    axes.set_title(said, fontsize=8, color=TITLE_COLOURS.get(panel.verdict, "black"))
    axes.tick_params(labelsize=6)
    axes.set_yticks([])


if __name__ == "__main__":
    sys.exit(main())
