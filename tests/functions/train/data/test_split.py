"""Every example is in one set, every class in the same proportion, and the same seed shares out the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.train.data.builtin import BUILTIN_DATASETS
from functions.train.data.dataset import Dataset
from functions.train.data.load import load_dataset
from functions.train.data.split import Splits, scale_targets, split_by_stratum, split_dataset
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import BuiltinDataOptions, SplitFractions


def options(seed: int = 0, calibration: int = 100, train: float = 0.6, validation: float = 0.2) -> BuiltinDataOptions:
    fractions = SplitFractions(train=train, validation=validation, test=1 - train - validation)
    return BuiltinDataOptions(name="digits", seed=seed, fractions=fractions, calibration=calibration)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(options())


def rows(dataset: Dataset) -> set[bytes]:
    """The images as a set: no two of the 1,797 scans are the same."""
    return {image.tobytes() for image in dataset.inputs}


def test_split_is_disjoint_complete_and_stratified(digits: Dataset) -> None:
    splits = split_dataset(digits, options())
    train, validation, test = rows(splits.train), rows(splits.validation), rows(splits.test)
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert train | validation | test == rows(digits)
    for part, share in ((splits.train, 0.6), (splits.validation, 0.2), (splits.test, 0.2)):
        expected = share * np.bincount(digits.targets)
        assert np.abs(np.bincount(part.targets) - expected).max() <= 1


def test_calibration_is_a_part_of_the_training_set_alone(splits: Splits) -> None:
    calibration = rows(splits.calibration)
    assert len(calibration) == len(splits.calibration) == 32
    assert calibration <= rows(splits.train)
    assert not calibration & (rows(splits.validation) | rows(splits.test))


def test_split_follows_its_seed(digits: Dataset) -> None:
    first, again, other = (split_dataset(digits, options(seed)) for seed in (1, 1, 2))
    for name in ("train", "validation", "test", "calibration"):
        assert getattr(first, name).sha256 == getattr(again, name).sha256 != getattr(other, name).sha256


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=200),
    st.floats(0.01, 0.49),
    st.floats(0.01, 0.49),
    st.integers(0, 2**32 - 1),
)
def test_stratify_cuts_every_class_alike(labels: list[int], train: float, validation: float, seed: int) -> None:
    fractions = SplitFractions(train=train, validation=validation, test=1 - train - validation)
    parts = split_by_stratum(np.array(labels), fractions, np.random.default_rng(seed))
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    for part, share in zip(parts, (train, validation, 1 - train - validation), strict=True):
        for label in set(labels):
            members = sum(labels[index] == label for index in part)
            assert abs(members - share * labels.count(label)) <= 1


def test_numbers_are_shared_out_by_their_range() -> None:
    diabetes = BUILTIN_DATASETS["diabetes"]()
    splits = split_dataset(diabetes, options())
    low, high = np.quantile(diabetes.targets, [0.2, 0.8])
    for part in (splits.train, splits.validation, splits.test):
        assert abs((part.targets < low).mean() - 0.2) < 0.02
        assert abs((part.targets > high).mean() - 0.2) < 0.02


def test_scaling_is_of_the_training_set_alone() -> None:
    splits = split_dataset(BUILTIN_DATASETS["diabetes"](), options())
    scaled = scale_targets(splits)
    mean, deviation = splits.train.targets.mean(), splits.train.targets.std()
    assert scaled.test.targets == pytest.approx((splits.test.targets - mean) / deviation)
    assert np.array_equal(scaled.test.inputs, splits.test.inputs)
    assert scaled.sha256 == splits.sha256


def test_too_many_calibration_examples_are_refused(digits: Dataset) -> None:
    with pytest.raises(InvalidInputError, match=r"data\.calibration is 1500; there are 1078 training examples"):
        split_dataset(digits, options(calibration=1500))


def test_split_without_a_class_is_refused(digits: Dataset) -> None:
    with pytest.raises(InvalidInputError, match=r"data\.fractions\.validation is too small"):
        split_dataset(digits, options(validation=0.001))
