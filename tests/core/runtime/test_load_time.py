import pytest

from pilotlight.runtime.load_time import LoadTimeEstimator, predict_load_seconds


def test_a_version_is_as_slow_as_it_was() -> None:
    pace = LoadTimeEstimator()
    pace.record_load("a", 10_000_000, 2.0)
    assert pace.estimate_seconds("a", 10_000_000) == 2.0


def test_another_is_as_slow_as_its_size_says() -> None:
    pace = LoadTimeEstimator()
    assert pace.estimate_seconds("b", 78_000_000) == predict_load_seconds(78_000_000) == pytest.approx(1.2, abs=0.02)
    pace.record_load("a", 10_000_000, 2.0)
    assert pace.estimate_seconds("b", 20_000_000) == pytest.approx(4, abs=0.1)


def test_small_models_say_nothing_about_large_ones() -> None:
    pace = LoadTimeEstimator()
    pace.record_load("small", 100, 2.0)
    assert pace.estimate_seconds("b", 78_000_000) == predict_load_seconds(78_000_000)
