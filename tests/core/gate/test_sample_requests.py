"""A publisher's own requests: taken as they are meant, or refused with the value that does not fit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotlight.contracts.manifest import Datatype, TensorSpec
from pilotlight.errors import InvalidInputError
from pilotlight.gate.sample_requests import load_samples


@pytest.mark.parametrize(
    ("datatype", "values", "said"),
    [
        ("UINT8", np.array([-1], np.int8), "no UINT8, such as -1; the graph takes UINT8 [n]"),
        ("UINT64", np.array([-1]), "no UINT64, such as -1"),
        ("INT64", np.array([2**63], np.uint64), "no INT64, such as 9223372036854775808"),
        ("INT64", np.array([1.0, 2.5]), "no INT64, such as 2.5"),
        ("INT64", np.array([np.nan]), "no INT64, such as nan"),
        ("BOOL", np.array([1, 2]), "no BOOL, such as 2"),
        ("FP16", np.array([1.0, 1e6]), "no FP16, such as 1000000.0"),
    ],
)
def test_values_that_the_graph_does_not_hold_are_told(
    tmp_path: Path,
    datatype: Datatype,
    values: Any,  # noqa: ANN401
    said: str,
) -> None:
    file = tmp_path / "sample.npz"
    np.savez(file, x=values)
    with pytest.raises(InvalidInputError) as raised:
        load_samples(file, [TensorSpec("x", datatype, ("n",))])
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("datatype", "data", "said"),
    [
        ("INT64", [1, 2.7], "'x' with values that are no INT64, such as"),
        ("UINT8", [1, 256], "do not fit its shape or datatype"),
        ("BOOL", [True, 2], "no BOOL, such as"),
        ("FP32", [1, 1e300], "no FP32, such as"),
        ("FP32", [1, "a"], "do not fit its shape or datatype, [2] FP32: could not convert string"),
        ("INT64", [1, 2**70], "do not fit its shape or datatype"),
        ("INT64", [1, None], "do not fit its shape or datatype"),
        ("FP32", [[1], [2, 3]], "with data that do not fit its shape or datatype"),
    ],
)
def test_numbers_of_a_request_are_not_cut(tmp_path: Path, datatype: Datatype, data: list[Any], said: str) -> None:
    file = tmp_path / "sample.json"
    file.write_text(json.dumps({"inputs": [{"name": "x", "shape": [2], "datatype": datatype, "data": data}]}))
    with pytest.raises(InvalidInputError) as raised:
        load_samples(file, [TensorSpec("x", datatype, ("n",))])
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("datatype", "data"),
    [("INT64", [1.0, 2]), ("FP32", [1, 2]), ("BOOL", [1, 0]), ("UINT64", [2**64 - 1, 1]), ("BYTES", ["a", "b"])],
)
def test_numbers_of_a_request_are_taken_as_they_are_meant(tmp_path: Path, datatype: Datatype, data: list[Any]) -> None:
    file = tmp_path / "sample.json"
    file.write_text(json.dumps({"inputs": [{"name": "x", "shape": [2], "datatype": datatype, "data": data}]}))
    (feeds,) = load_samples(file, [TensorSpec("x", datatype, ("n",))])
    assert feeds["x"].tolist() == data


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "sample.npz"
    np.savez_compressed(file, x=np.random.default_rng(0).standard_normal(400))
    content = bytearray(file.read_bytes())
    content[60:200] = bytes(140)
    file.write_bytes(content)
    with pytest.raises(InvalidInputError, match="does not read as arrays"):
        load_samples(file, [TensorSpec("x", "FP64", ("n",))])
