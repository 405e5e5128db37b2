import pytest

from pilotlight.runtime.load_time import Pace, predicted


def test_a_version_is_as_slow_as_it_was() -> None:
    pace = Pace()
    pace.note("a", 10_000_000, 2.0)
    assert pace.seconds("a", 10_000_000) == 2.0


def test_another_is_as_slow_as_its_size_says() -> None:
    pace = Pace()
    assert pace.seconds("b", 78_000_000) == predicted(78_000_000) == pytest.approx(1.2, abs=0.02)
    pace.note("a", 10_000_000, 2.0)
    assert pace.seconds("b", 20_000_000) == pytest.approx(4, abs=0.1)


def test_small_models_say_nothing_about_large_ones() -> None:
    pace = Pace()
    pace.note("small", 100, 2.0)
    assert pace.seconds("b", 78_000_000) == predicted(78_000_000)
