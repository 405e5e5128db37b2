"""Images are moved as numpy moves them, on the training set alone, and the same again after a kill."""

import math

import numpy as np
import pytest
import torch

from functions.train.data import Array, augmentation
from functions.train.data.augmentation import transform_images
from functions.train.data.split import Splits
from functions.train.training import prediction
from functions.train.training.step import StepResult, TrainStep
from functions.train.training.trainer import seed_torch
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import AugmentationOptions
from pilotlight.recipes.schema import load_recipe
from tests.functions.train.conftest import tiny_recipe
from tests.functions.train.training.test_checkpoint import StopAt, assert_same, stopped, trained

EVERYTHING = "augmentation={shift: 1, rotate: 15, flip: true, noise: 0.5}"


def still(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """No motion at all."""
    return torch.zeros(count), torch.zeros(count, 2), torch.zeros(count, dtype=torch.bool)


def drawing(height: int, width: int) -> torch.Tensor:
    return torch.rand(3, 2, height, width, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("down", "right"), [(0, 0), (1, 0), (-2, 0), (0, 3), (2, -1)])
def test_shift_is_numpys_roll_with_zeros_coming_in(down: int, right: int) -> None:
    images = drawing(6, 9)
    turns, _, mirrored = still(3)
    found = transform_images(images, turns, torch.tensor([[down, right]] * 3).float(), mirrored).numpy()
    expected = np.roll(images.numpy(), (down, right), axis=(2, 3))
    expected[:, :, slice(0, down) if down >= 0 else slice(down, None)] = 0
    expected[:, :, :, slice(0, right) if right >= 0 else slice(right, None)] = 0
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_quarter_turns_are_numpys_rot90(quarters: int) -> None:
    images = drawing(7, 7)
    _, shifts, mirrored = still(3)
    found = transform_images(images, torch.full((3,), quarters * math.pi / 2), shifts, mirrored).numpy()
    assert found == pytest.approx(np.rot90(images.numpy(), quarters, axes=(2, 3)), abs=1e-5)


def test_half_turn_of_an_oblong_keeps_its_sides() -> None:
    images = drawing(4, 9)
    _, shifts, mirrored = still(3)
    found = transform_images(images, torch.full((3,), math.pi), shifts, mirrored).numpy()
    assert found == pytest.approx(images.numpy()[:, :, ::-1, ::-1], abs=1e-5)


def test_mirror_and_shift_go_together() -> None:
    images = drawing(5, 5)
    turns, _, _ = still(3)
    found = transform_images(images, turns, torch.tensor([[0.0, 1.0]] * 3), torch.ones(3, dtype=torch.bool)).numpy()
    assert found[..., 1:] == pytest.approx(images.numpy()[..., :0:-1], abs=1e-5)
    assert found[..., 0] == pytest.approx(0)


def test_turn_comes_before_the_shift() -> None:
    images = drawing(5, 5)
    _, _, mirrored = still(3)
    found = transform_images(images, torch.full((3,), math.pi / 2), torch.tensor([[1.0, 0.0]] * 3), mirrored).numpy()
    turned = np.rot90(images.numpy(), 1, axes=(2, 3))
    assert found[:, :, 1:] == pytest.approx(turned[:, :, :-1], abs=1e-5)


def test_noise_has_the_stated_deviation_in_the_datas_unit() -> None:
    images = torch.full((200, 1, 16, 16), 100.0)
    with seed_torch(1):
        added = augmentation.Augmentation(AugmentationOptions(noise=7.0))(images) - images
    assert float(added.std()) == pytest.approx(7, rel=0.02)
    assert float(added.mean()) == pytest.approx(0, abs=0.1)


def test_each_image_is_drawn_for_itself_within_its_bounds() -> None:
    images = torch.zeros(300, 1, 9, 9)
    images[:, :, 4, 4] = 1
    with seed_torch(2):
        found = augmentation.Augmentation(AugmentationOptions(shift=2))(images).numpy()
    places = np.argwhere(found[:, 0] > 0.5)[:, 1:] - 4
    assert {int(step) for step in np.unique(places)} == {-2, -1, 0, 1, 2}
    assert len(np.unique(places, axis=0)) == 25


def test_table_has_nothing_to_turn() -> None:
    with pytest.raises(InvalidInputError, match="augmentation is for images, not for examples of 13 values"):
        augmentation.build_augmentation(AugmentationOptions(shift=1), (13,))


def test_only_training_batches_are_changed(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe("epochs=1", EVERYTHING)
    trained_on, judged_on = list[bytes](), list[Array]()
    known = {image.tobytes() for image in splits.train.inputs}

    def take(
        self: TrainStep, batch: torch.Tensor, truth: torch.Tensor, rate: float, number: int, examples: int
    ) -> StepResult:
        trained_on.extend(image.tobytes() for image in batch.numpy())
        return original(self, batch, truth, rate, number, examples)

    def run(network: torch.nn.Module, images: Array) -> torch.Tensor:
        judged_on.append(images)
        return asked(network, images)

    original, asked = TrainStep.take_step, prediction.run_network
    before = {name: getattr(splits, name).sha256 for name in ("train", "validation", "test", "calibration")}
    monkeypatch.setattr(TrainStep, "take_step", take)
    monkeypatch.setattr(prediction, "run_network", run)
    trained(recipe, splits)
    assert len(trained_on) == len(splits.train)
    assert not known.intersection(trained_on)
    (judged,) = judged_on
    assert np.array_equal(judged, splits.validation.inputs)
    assert {name: getattr(splits, name).sha256 for name in before} == before


def test_kill_and_resume_draw_the_same_changes(splits: Splits) -> None:
    recipe = tiny_recipe("epochs=2", EVERYTHING)
    whole = trained(recipe, splits)
    in_the_second_epoch = stopped(recipe, splits, 20)
    assert_same(trained(recipe, splits, StopAt(-1, in_the_second_epoch)), whole)


def test_word_that_is_none_is_told() -> None:
    with pytest.raises(InvalidInputError, match=r"no key 'augmentation\.zoom'; augmentation takes shift, rotate"):
        load_recipe("digits", ["augmentation={zoom: 2}"])
    with pytest.raises(InvalidInputError, match=r"augmentation\.rotate is 400"):
        load_recipe("digits", ["augmentation={rotate: 400}"])
