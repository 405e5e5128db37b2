"""The built-in data sets are what their sources measured, whole and unscaled."""

import numpy as np
import pytest

from functions.train.data.builtin import BUILTIN_DATASETS, load_digits
from functions.train.data.cleaning import CleaningReport


def test_digits_are_raw_scans() -> None:
    digits = load_digits()
    assert digits.inputs.shape == (1797, 1, 8, 8)
    assert digits.inputs.dtype == np.float32
    assert (digits.inputs.min(), digits.inputs.max()) == (0, 16)
    assert np.array_equal(digits.inputs, digits.inputs.round())
    assert digits.targets.dtype == np.int64
    assert digits.classes == tuple("0123456789")
    assert len({image.tobytes() for image in digits.inputs}) == len(digits)


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("breast-cancer", (569, 30), 2), ("wine", (178, 13), 3), ("diabetes", (442, 10), 0)],
)
def test_tables_are_whole(name: str, shape: tuple[int, int], classes: int) -> None:
    dataset = BUILTIN_DATASETS[name]()
    assert dataset.inputs.shape == shape
    assert dataset.inputs.dtype == np.float32
    assert len(dataset.features) == shape[1]
    assert len(dataset.classes) == classes
    assert dataset.cleaning == CleaningReport(shape[0], 0, 0, ())
    assert dataset.targets.dtype == (np.int64 if classes else np.float32)
    assert dataset.targets.shape == ((shape[0],) if classes else (shape[0], 1))
    assert dataset.output_size == max(1, classes)
