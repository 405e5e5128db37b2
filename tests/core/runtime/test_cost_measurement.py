"""What requests of a graph cost, as publishing measures it; graphs whose rows depend on each other are found."""

from pathlib import Path

import numpy as np
import pytest

from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import RequestCost
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.cost_measurement import (
    CostMeasurementRequest,
    build_rows,
    has_distinct_rows,
    is_concatenation,
    measure_graph,
    measure_request_cost,
)
from pilotlight.runtime.golden import GoldenDocument
from tests import fakes


def measure(name: str) -> RequestCost:
    return measure_graph(CostMeasurementRequest(str(fakes.MODELS / f"{name}.onnx")))


def test_a_process_measures_the_digits_model() -> None:
    folder = fakes.MODELS / "digits"
    golden = decode_document((folder / "golden.json").read_bytes(), GoldenDocument, "golden.json")
    cost = measure_request_cost(folder / "model.int8.onnx", golden)
    assert cost is not None
    assert [point.rows for point in cost.points] == [1, 8, 64]
    assert {point.row_bytes for point in cost.points} == {256}
    assert [point.output_bytes for point in cost.points] == [40, 320, 2560]
    assert 100_000 < cost.points[-1].peak_bytes < 5_000_000  # the first layer alone has 32 maps of 64 numbers a row
    assert 100_000 < cost.session_bytes < 5_000_000
    assert cost.rows_independent


@pytest.mark.parametrize(
    ("name", "independent"),
    [
        ("double", True),
        ("pair", True),
        ("tokens", True),
        ("colours", True),
        ("centred", False),
        ("shared", False),
        ("outer", False),
        ("echo-bytes", False),  # its rows are not varied, so nothing is known
        ("echo-bool", True),
    ],
)
def test_rows_that_depend_on_each_other_are_found(name: str, independent: bool) -> None:
    assert measure(name).rows_independent is independent


def test_larger_rows_are_measured_where_their_size_is_free() -> None:
    sizes = [(point.rows, point.row_bytes) for point in measure("tokens").points]
    assert sizes == [(1, 192), (8, 192), (64, 192), (1, 192 * 16)]


def test_a_graph_that_does_not_end_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilotlight.runtime.cost_measurement.MEASURE_SECONDS", 0.05)
    with pytest.raises(InvalidInputError, match="takes too long"):
        measure("endless")


def test_publishing_goes_on_without_a_measurement(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    assert measure_request_cost(tmp_path / "bad.onnx") is None
    assert "What requests of bad.onnx cost is not measured: onnxruntime" in caplog.text


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
def test_repeated_rows_are_varied(dtype: str) -> None:
    rows = build_rows([np.arange(4, dtype=dtype).reshape(1, 4) + np.array(1, dtype)], 4)
    assert rows.shape == (4, 4)
    assert rows.dtype == dtype
    assert has_distinct_rows({"x": rows})
    assert rows.max() <= 4


def test_equal_rows_show_nothing() -> None:
    assert not has_distinct_rows({"x": np.zeros((2, 3), np.float32)})
    assert has_distinct_rows({"x": np.zeros((2, 3), np.float32), "y": np.arange(2)})


def test_only_rounding_may_differ() -> None:
    together = np.array([[1.0, np.nan], [3.0, 4.0]], np.float32)
    alone = [together[:1].copy(), together[1:] + np.float32(1e-5)]
    assert is_concatenation(together, alone)
    assert not is_concatenation(together, [alone[1], alone[0]])
    assert not is_concatenation(together, [alone[0], alone[1] + np.float32(1e-3)])
    assert not is_concatenation(together, [together[0], together[1]])
