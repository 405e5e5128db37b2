"""The hash of a data set is of its bytes."""

import hashlib

import numpy as np

from functions.train.data.dataset import Dataset


def test_hash_is_of_images_then_labels() -> None:
    images, labels = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2), np.array([1, 0])
    expected = hashlib.sha256(images.astype("<f4").tobytes() + labels.astype("<i8").tobytes()).hexdigest()
    assert Dataset(images, labels, ("a", "b")).sha256 == expected
    assert Dataset(images[:, :, ::-1], labels, ("a", "b")).sha256 != expected
