"""Folds share the examples out once each, and a cross-validation that was broken off goes on at its next fold."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.train.data import folds
from functions.train.data.dataset import Dataset
from functions.train.data.folds import FoldScores, split_into_folds
from functions.train.data.load import load_dataset
from functions.train.pipeline import run_recipe
from functions.train.progress import ProgressReporter
from functions.train.training.training_history import EpochMetrics
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import BuiltinDataOptions
from pilotlight.storage.object_store import open_store
from tests.functions.train.conftest import silence, tiny_recipe


def labelled(counts: list[int]) -> Dataset:
    labels = np.repeat(np.arange(len(counts)), counts)
    return Dataset(np.zeros((len(labels), 1), np.float32), labels, tuple(map(str, range(len(counts)))))


@given(st.integers(2, 6), st.lists(st.integers(6, 40), min_size=1, max_size=5), st.integers(0, 99))
def test_folds_hold_every_example_once_and_every_class_evenly(k: int, counts: list[int], seed: int) -> None:
    dataset = labelled(counts)
    found = split_into_folds(dataset, k, seed)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(dataset)))
    for label in range(len(counts)):
        held = [int((dataset.targets[indices] == label).sum()) for indices in found]
        assert max(held) - min(held) <= 1
    assert all(np.array_equal(*pair) for pair in zip(found, split_into_folds(dataset, k, seed), strict=True))


def test_class_with_too_few_examples_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="folds is 5; a class has only 4 examples"):
        split_into_folds(labelled([9, 4]), 5, 0)


def options() -> BuiltinDataOptions:
    known = tiny_recipe().data
    assert isinstance(known, BuiltinDataOptions)
    return known


def test_sets_of_a_fold_have_nothing_in_common() -> None:
    digits = load_dataset(options())
    for parts in folds.build_fold_splits(digits, 5, 1, options().fractions):
        sets = (parts.train, parts.validation, parts.test)
        assert sum(map(len, sets)) == len(digits)
        assert len({example.tobytes() for part in sets for example in part.inputs}) == len(
            {example.tobytes() for example in digits.inputs}
        )
        assert len(parts.validation) == pytest.approx(len(digits) * 0.8 * 0.2, abs=3)  # as 15 to 60


def test_mean_and_standard_deviation() -> None:
    found = FoldScores("accuracy", (0.9, 0.94, 0.98))
    assert found.mean == pytest.approx(0.94)
    assert found.standard_deviation == pytest.approx(0.04)
    assert str(found) == "accuracy 94.00% over 3 folds, standard deviation 4.00%"


@pytest.mark.slow
def test_cross_validation_goes_on_at_its_next_fold() -> None:
    recipe, store, stops = (
        tiny_recipe("folds=2", "epochs=1", "optimiser.learning_rate=0.01"),
        open_store("memory://"),
        2,
    )
    whole = run_recipe(recipe, open_store("memory://"), silence()).folds
    seen = list[EpochMetrics]()

    class Breaking(ProgressReporter):
        def show_epoch(self, epoch: EpochMetrics, of: int) -> float:
            seen.append(epoch)
            if len(seen) == stops:
                raise KeyboardInterrupt
            return super().show_epoch(epoch, of)

    calls: dict[str, Any] = {"recipe": recipe, "store": store, "run_name": "r"}
    with pytest.raises(KeyboardInterrupt):
        run_recipe(progress=Breaking(silence().console), **calls)
    outcome = run_recipe(progress=silence(), **calls)
    assert outcome.folds == whole
    assert outcome.folds is not None
    assert 0.1 < outcome.folds.mean <= 1
    assert "folds" in outcome.seconds
    assert run_recipe(progress=silence(), **calls).folds == whole
    assert [path for path in store.list_paths("runs/r") if "checkpoints" in path] == []
