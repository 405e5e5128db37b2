"""Plot curves in a terminal, with characters that every terminal has.

It knows numbers and names. A column is an epoch, or the mean of several; a value that is not finite leaves a gap.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean

WIDTH, HEIGHT = 64, 12  # characters of the field
MARKS = "·*"  # of the first curve, the second; a later one is drawn over an earlier one
LOG_SCALE_RATIO = 10.0  # the largest over the smallest value, from which on the axis is logarithmic

Values = Sequence[float | None]


def plot_curves(curves: Mapping[str, Values], best_epoch: int | None = None) -> list[str]:
    """Plot at most two curves over the epochs, 1 to n, as lines of text; `best_epoch` is marked below."""
    columns = {name: average_to_width(values) for name, values in curves.items()}
    seen = [value for values in columns.values() for value in values if value is not None]
    epochs = max((len(values) for values in curves.values()), default=0)
    if not seen:
        return ["no epoch yet"]
    scale = AxisScale(min(seen), max(seen))
    width = max(len(values) for values in columns.values())
    field = [[" "] * width for _ in range(HEIGHT)]
    for mark, values in zip(MARKS, columns.values(), strict=False):
        for column, value in enumerate(values):
            if value is not None:
                field[scale.get_row(value)][column] = mark
    lines = [f"{scale.format_label(row):>9} ┤{''.join(cells)}".rstrip() for row, cells in enumerate(field)]
    legend = "  ".join(f"{mark} {name}" for mark, name in zip(MARKS, columns, strict=False))
    return [
        *lines,
        draw_axis(width, epochs, best_epoch),
        f"{'':>11}epoch 1 to {epochs}: {legend}{', ^ kept' if best_epoch else ''}",
    ]


class AxisScale:
    """Maps values to rows, the largest to row 0; logarithmic if values are positive and far apart."""

    def __init__(self, low: float, high: float) -> None:
        self.logarithmic = low > 0 and high / low >= LOG_SCALE_RATIO
        self._low, self._high = self._transform(low), self._transform(high)

    def get_row(self, value: float) -> int:
        """Return the row of a value."""
        spread = self._high - self._low
        return round((HEIGHT - 1) * (self._high - self._transform(value)) / spread) if spread else HEIGHT // 2

    def format_label(self, row: int) -> str:
        """Format the label of a row; only every third row and the last one have a label."""
        if row % 3 and row != HEIGHT - 1:
            return ""
        value = self._high - (self._high - self._low) * row / (HEIGHT - 1)
        return f"{math.exp(value) if self.logarithmic else value:.3g}"

    def _transform(self, value: float) -> float:
        return math.log(value) if self.logarithmic else value


def average_to_width(values: Values) -> list[float | None]:
    """Average neighbours, so that there are at most as many values as columns."""
    if len(values) <= WIDTH:
        return list(values)
    edges = [round(column * len(values) / WIDTH) for column in range(WIDTH + 1)]
    groups = [[value for value in values[a:b] if value is not None] for a, b in pairwise(edges)]
    return [fmean(group) if group else None for group in groups]


def draw_axis(width: int, epochs: int, best_epoch: int | None) -> str:
    """Draw the line below the field, with the kept epoch marked."""
    line = ["─"] * width
    if best_epoch:
        line[min(width - 1, (best_epoch - 1) * width // max(1, epochs))] = "^"
    return f"{'':>9} └{''.join(line)}"
