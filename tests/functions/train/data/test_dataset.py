"""The hash of a data set is of its bytes."""

import hashlib

import numpy as np
import pytest

from functions.train.data.dataset import Dataset
from functions.train.data.statistics import compute_moments


def test_hash_is_of_images_then_labels() -> None:
    images, labels = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2), np.array([1, 0])
    expected = hashlib.sha256(images.astype("<f4").tobytes() + labels.astype("<i8").tobytes()).hexdigest()
    assert Dataset(images, labels, ("a", "b")).sha256 == expected
    assert Dataset(images[:, :, ::-1], labels, ("a", "b")).sha256 != expected


@pytest.mark.parametrize("unit", [1e-28, 1e29])
def test_moments_whose_squares_are_beyond_float32(unit: float) -> None:
    values = np.random.default_rng(0).normal(3, 1, (500, 2)).astype(np.float32)
    found, plain = compute_moments((values.astype(np.float64) * unit).astype(np.float32)), compute_moments(values)
    np.testing.assert_allclose(found.mean / unit, plain.mean, rtol=1e-4)
    np.testing.assert_allclose(found.deviation / unit, plain.deviation, rtol=1e-4)
    assert found.deviation.dtype == plain.deviation.dtype
