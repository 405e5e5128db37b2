"""Run the rows of a request one after another: each takes what the graph remembers of the one before.

For graphs that carry a state, and for those whose first dimension is fixed at 1. It depends on arrays alone.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf

import numpy as np
from msgspec import Struct

from pilotlight.errors import TooLargeError
from pilotlight.runtime.datatypes import Array

Feeds = Mapping[str, Array]
RunRow = Callable[[Feeds, Sequence[str]], dict[str, Array]]
MIN_TIMED_ROWS = 8  # before the time of all rows is estimated: the first ones take longer


class Recurrence(Struct, frozen=True):
    """Which input holds the rows, and which outputs become inputs of the next row."""

    input: str
    states: Mapping[str, str] = {}  # outputs by the inputs that they become


def select_first_run(feeds: Feeds, recurrence: Recurrence | None) -> Feeds:
    """Select what the graph takes at once: all feeds, or those of the first row."""
    if recurrence is None:
        return feeds
    return {**feeds, recurrence.input: feeds[recurrence.input][:1]}


def run_rows(feeds: Feeds, outputs: Sequence[str], recurrence: Recurrence, run_row: RunRow, deadline: float) -> Feeds:
    """Run row by row; each output holds those of all rows, and a carried one that of the last.

    Raises `TooLargeError` as soon as it is clear that the rows will not be done by the deadline.
    """
    carried = {output: name for name, output in recurrence.states.items()}
    wanted = list(dict.fromkeys((*outputs, *carried)))
    collected: dict[str, list[Array]] = {name: [] for name in outputs if name not in carried}
    last: dict[str, Array] = {}
    for row_feeds in iterate_rows(feeds, recurrence, deadline):
        last = run_row({**row_feeds, **{name: last[output] for output, name in carried.items() if last}}, wanted)
        for name, values in collected.items():
            values.append(np.atleast_1d(last[name]))
    joined = {name: np.concatenate(values) for name, values in collected.items()}
    return {name: joined[name] if name in joined else last[name] for name in outputs}


def iterate_rows(feeds: Feeds, recurrence: Recurrence, deadline: float) -> Iterator[Feeds]:
    """Yield the feeds of each row, and watch the time."""
    rows, began = feeds[recurrence.input], time.monotonic()
    for place in range(len(rows)):
        if place >= MIN_TIMED_ROWS and deadline != inf:
            check_time(place, len(rows), time.monotonic() - began, deadline - began)
        yield {**feeds, recurrence.input: rows[place : place + 1]}


def check_time(done: int, rows: int, seconds: float, limit: float) -> None:
    """Refuse rows that would take longer than the limit, by the time of those that are done."""
    needed = seconds / done * rows
    if needed > limit:
        raise TooLargeError(
            f"{rows:,} rows, one after another, take about {1000 * needed:,.0f} ms, and {1000 * max(0.0, limit):,.0f} "
            f"ms were left for them, enough for {int(done * max(0.0, limit) / seconds):,}; send a shorter file."
        )
