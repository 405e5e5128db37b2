"""The recipe of record, in full: the numbers that the README may promise."""

import pytest

from functions.train.pipeline import RunOutcome, run_recipe
from pilotlight.recipes.schema import load_recipe
from pilotlight.storage.object_store import open_store
from tests.functions.train.conftest import silence


@pytest.fixture(scope="module")
def record() -> RunOutcome:
    return run_recipe(load_recipe("digits"), open_store("memory://"), silence())


def test_accuracy_of_record(record: RunOutcome) -> None:
    fp32, int8 = (record.report.variants[precision].accuracy for precision in ("fp32", "int8"))
    assert fp32 >= 0.98
    assert int8 >= 0.97
    assert record.report.points_lost <= 0.5


def test_int8_of_record_is_served_and_small(record: RunOutcome) -> None:
    assert record.manifest.serve == "int8"
    assert record.report.size_ratio <= 0.28
    assert record.report.agreement >= 0.98


def test_parity_of_record(record: RunOutcome) -> None:
    assert record.manifest.parity is not None
    assert record.manifest.parity.max_abs <= 1e-4
