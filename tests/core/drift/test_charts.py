"""Bars: equal widths from quantile bins, shares that add up, and ends for what is beyond."""

import numpy as np
import pytest

from pilotlight.drift.aggregation import cleared
from pilotlight.drift.charts import COLUMNS, columns, lines
from pilotlight.drift.histograms import counted, sketch


def test_shares_add_up_and_what_is_beyond_is_at_the_ends() -> None:
    before = sketch(np.linspace(0, 1, 1000))
    now = counted(cleared(before), np.concatenate([np.full(30, -5.0), np.linspace(0, 1, 60), np.full(10, 9.0)]))
    found = columns(now, before)
    assert len(found) == COLUMNS + 2
    assert found.sum() == pytest.approx(1)
    assert (found[0], found[-1]) == (0.3, 0.1)


def test_a_flat_world_is_drawn_flat_though_bins_are_quantiles() -> None:
    found = columns(sketch(np.linspace(0, 1, 6400)), sketch(np.linspace(0, 1, 6400)))
    assert found[1:-1] == pytest.approx(np.full(COLUMNS, 1 / COLUMNS), abs=2e-3)


def test_numbers_and_words_are_drawn() -> None:
    before = sketch(np.arange(100.0))
    training, now, scale = lines(before, counted(cleared(before), np.full(50, 200.0)))
    assert training.count("█") >= 1
    assert now.endswith("█│")
    assert ("<0" in scale, "99>" in scale) == (True, True)
    words = sketch(np.array(["a", "b", "b"], object))
    assert any("66.7%" in line for line in lines(words, words))


def test_one_value_and_no_value_are_drawn() -> None:
    for values in (np.zeros(5), np.full(5, np.nan)):
        found = sketch(values)
        assert lines(found, found)
