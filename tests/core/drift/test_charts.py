"""Bars: equal widths from quantile bins, shares that add up, and ends for what is beyond."""

import numpy as np
import pytest

from pilotlight.drift.aggregation import clear_histogram
from pilotlight.drift.charts import COLUMNS, compute_column_shares, format_chart
from pilotlight.drift.histograms import add_values, build_histogram


def test_shares_add_up_and_what_is_beyond_is_at_the_ends() -> None:
    before = build_histogram(np.linspace(0, 1, 1000))
    now = add_values(
        clear_histogram(before), np.concatenate([np.full(30, -5.0), np.linspace(0, 1, 60), np.full(10, 9.0)])
    )
    found = compute_column_shares(now, before)
    assert len(found) == COLUMNS + 2
    assert found.sum() == pytest.approx(1)
    assert (found[0], found[-1]) == (0.3, 0.1)


def test_a_flat_world_is_drawn_flat_though_bins_are_quantiles() -> None:
    found = compute_column_shares(build_histogram(np.linspace(0, 1, 6400)), build_histogram(np.linspace(0, 1, 6400)))
    assert found[1:-1] == pytest.approx(np.full(COLUMNS, 1 / COLUMNS), abs=2e-3)


def test_numbers_and_words_are_drawn() -> None:
    before = build_histogram(np.arange(100.0))
    training, now, scale = format_chart(before, add_values(clear_histogram(before), np.full(50, 200.0)))
    assert training.count("█") >= 1
    assert now.endswith("█│")
    assert ("<0" in scale, "99>" in scale) == (True, True)
    words = build_histogram(np.array(["a", "b", "b"], object))
    assert any("66.7%" in line for line in format_chart(words, words))


def test_one_value_and_no_value_are_drawn() -> None:
    for values in (np.zeros(5), np.full(5, np.nan)):
        found = build_histogram(values)
        assert format_chart(found, found)
