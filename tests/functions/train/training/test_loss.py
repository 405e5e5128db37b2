"""The losses in closed form, and what a recipe may not ask of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.data.split import Splits
from functions.train.training import loss
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import CrossEntropyOptions, LossOptions, MseOptions

CPU = torch.device("cpu")
LABELS = np.array([0, 0, 0, 1, 2, 2])
CLASSES = Dataset(np.zeros((6, 2), np.float32), LABELS, ("a", "b", "c"))
NUMBERS = Dataset(np.zeros((6, 2), np.float32), np.arange(6, dtype=np.float32)[:, None], ())
LOGITS = np.random.default_rng(2).normal(size=(6, 3)) * 3


def mean(options: LossOptions | None, data: Dataset, outputs: Array) -> float:
    built = loss.build_loss(options, data, CPU)
    return float(built.compute_mean(torch.from_numpy(outputs).float(), torch.from_numpy(data.targets)))


def log_softmax(logits: Array) -> Array:
    result: Array = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return result


@given(st.floats(0, 0.99))
def test_smoothed_cross_entropy_in_closed_form(smoothing: float) -> None:
    truth = (1 - smoothing) * np.eye(3)[LABELS] + smoothing / 3
    expected = -(truth * log_softmax(LOGITS)).sum(axis=1).mean()
    options = CrossEntropyOptions(name="cross_entropy", label_smoothing=smoothing)
    assert mean(options, CLASSES, LOGITS) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("weights", "known"), [("balanced", [6 / 9, 2.0, 1.0]), ((0.5, 2.0, 3.0), [0.5, 2.0, 3.0])])
def test_class_weights_in_closed_form(weights: object, known: list[float]) -> None:
    options = CrossEntropyOptions.model_validate({"name": "cross_entropy", "class_weights": weights})
    each = np.array(known)[LABELS]
    expected = -(each * log_softmax(LOGITS)[np.arange(6), LABELS]).sum() / each.sum()
    assert mean(options, CLASSES, LOGITS) == pytest.approx(expected, rel=1e-5)


def test_squared_error_in_closed_form() -> None:
    outputs = NUMBERS.targets + np.array([[1], [-1], [2], [0], [0], [0]], np.float32)
    assert mean(MseOptions(name="mse"), NUMBERS, outputs) == pytest.approx(1.0)


def test_loss_that_is_not_named_fits_the_data() -> None:
    assert isinstance(loss.build_loss(None, CLASSES, CPU), loss.CrossEntropy)
    assert isinstance(loss.build_loss(None, NUMBERS, CPU), loss.SquaredError)


def test_hits_are_right_classes_or_add_up_to_r2() -> None:
    hits = loss.build_loss(None, CLASSES, CPU).count_hits(torch.from_numpy(LOGITS), torch.from_numpy(LABELS))
    assert int(hits) == (LOGITS.argmax(axis=1) == LABELS).sum()
    targets = torch.tensor([[1.0], [-1.0]])  # of variance 1
    assert float(loss.build_loss(None, NUMBERS, CPU).count_hits(targets, targets)) / 2 == 1.0
    assert float(loss.build_loss(None, NUMBERS, CPU).count_hits(torch.zeros(2, 1), targets)) / 2 == 0.0


@pytest.mark.parametrize(
    ("options", "data", "word"),
    [
        (MseOptions(name="mse"), CLASSES, "targets are classes"),
        (CrossEntropyOptions(name="cross_entropy"), NUMBERS, "targets are numbers"),
        (CrossEntropyOptions(name="cross_entropy", class_weights=(1.0, 2.0)), CLASSES, "one for each of the 3"),
    ],
)
def test_loss_that_does_not_fit_the_data_is_refused(options: LossOptions, data: Dataset, word: str) -> None:
    with pytest.raises(InvalidInputError, match=word):
        loss.build_loss(options, data, CPU)


def test_balanced_weights_of_balanced_classes_are_one(splits: Splits) -> None:
    weights = loss.compute_class_weights(
        CrossEntropyOptions(name="cross_entropy", class_weights="balanced"), splits.train
    )
    assert weights == pytest.approx(np.ones(10), abs=0.05)
