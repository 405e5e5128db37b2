"""Predictions of memory and time: never far below what was measured, and corrected by what is seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pilotlight.contracts.manifest import CostPoint, Manifest, RequestCost, TensorSpec
from pilotlight.runtime.request_cost import CostFormula, VersionCost, compute_slowdown
from tests import fakes

POINTS = (CostPoint(1, 12, 0.1, 50_000, 12), CostPoint(8, 12, 0.8, 90_000, 96), CostPoint(64, 12, 6.4, 640_000, 768))


def priced(*points: CostPoint, independent: bool = True) -> Manifest:
    return replace(fakes.stepped(None), request_cost=RequestCost(points or POINTS, 100_000, independent))


@given(st.integers(1, 10**6), st.integers(1, 10**5))
def test_more_rows_and_larger_rows_never_cost_less(rows: int, row_bytes: int) -> None:
    cost = VersionCost(priced())
    assert cost.predict_bytes(rows, row_bytes) <= cost.predict_bytes(rows + 1, row_bytes)
    assert cost.predict_bytes(rows, row_bytes) <= cost.predict_bytes(rows, row_bytes + 1)
    assert cost.predict_seconds(rows, row_bytes) <= cost.predict_seconds(rows + 1, row_bytes + 1)
    fitting = cost.count_rows_for_bytes(cost.predict_bytes(rows, row_bytes), row_bytes)
    assert abs(fitting - rows) <= 1


@pytest.mark.parametrize("point", POINTS)
def test_what_was_measured_is_predicted(point: CostPoint) -> None:
    cost = VersionCost(priced())
    assert cost.predict_bytes(point.rows, 12) >= point.peak_bytes
    assert cost.predict_seconds(point.rows, 12) >= point.ms / 1000 * 0.99
    assert cost.predict_output_bytes(point.rows, 12) == point.output_bytes


def test_a_cost_that_grows_with_the_square_of_a_row_does_so_beyond_what_was_measured() -> None:
    squared = CostFormula.fit((POINTS[0], CostPoint(1, 120, 0, 0, 0)), [1.0, 100.0])
    assert squared.evaluate(1, 1200) == pytest.approx(10_000)
    assert CostFormula.fit(POINTS[:1], [1.0]).evaluate(1, 120) == pytest.approx(10)


def test_seen_times_correct_predictions() -> None:
    cost = VersionCost(priced(), slowdown=compute_slowdown(512))
    before = cost.predict_seconds(64, 12)
    for _ in range(20):
        cost.record_seconds(64, 12, 0.0065)
    assert before > 3 * cost.predict_seconds(64, 12)
    assert cost.predict_seconds(64, 12) == pytest.approx(0.0065, rel=0.1)
    cost.record_seconds(64, 12, 100.0)  # one run that was frozen
    assert cost.predict_seconds(64, 12) < 0.02


def test_a_version_without_measurements_is_learned() -> None:
    cost = VersionCost(fakes.stepped(None))
    assert (cost.predict_seconds(1000, 100), cost.is_divisible) == (0.0, False)
    assert cost.predict_bytes(1000, 100) == pytest.approx(1.3 * 16 * 100_000)
    for _ in range(20):
        cost.record_seconds(1000, 100, 0.1)
    assert cost.predict_seconds(2000, 100) == pytest.approx(0.2, rel=0.01)
    cost.record_exhaustion(1000, 100, 10_000_000)
    assert cost.predict_bytes(1000, 100) > 10_000_000
    cost.record_exhaustion(1000, 100, 1_000)  # memory was short for another reason
    assert cost.predict_bytes(1000, 100) == pytest.approx(11_000_000)


def test_rows_are_divided_only_where_all_first_dimensions_are_free() -> None:
    assert VersionCost(priced()).is_divisible
    assert not VersionCost(priced(independent=False)).is_divisible
    fixed = (TensorSpec("y", "FP32", (3,)),)
    assert not VersionCost(replace(priced(), outputs=fixed)).is_divisible
