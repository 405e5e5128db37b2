"""A step in parts is the step, a clipped gradient is as long as allowed, an average is its closed form."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from functions.train.data import loader
from functions.train.data.split import Splits
from functions.train.models.build import build_model
from functions.train.training import precision
from functions.train.training.optimiser import OPTIMISERS
from functions.train.training.prediction import predict_outputs
from functions.train.training.step import ExponentialMovingAverage, StepResult, TrainStep, describe_accumulation
from functions.train.training.trainer import seed_torch, train_model
from functions.train.training.training_history import EarlyStopping
from pilotlight.recipes.schema import Recipe
from tests.functions.train.conftest import tiny_recipe

CPU = torch.device("cpu")
PLAIN = ("model={architecture: mlp, hidden: [16]}", "optimiser={name: sgd, learning_rate: 0.1}")  # nothing of a batch


def stepped(recipe: Recipe, splits: Splits, examples: int, steps: int = 3) -> tuple[nn.Module, StepResult]:
    """Take some steps on the first examples; the model and what the last step said."""
    with seed_torch(1):
        network = build_model(recipe.model, splits.train)
    stepper = TrainStep(network.train(), splits.train, recipe)
    inputs, targets = (torch.from_numpy(array[:examples]) for array in (splits.train.inputs, splits.train.targets))
    for number in range(1, steps + 1):
        taken = stepper.take_step(inputs, targets, 0.1, number)
    return stepper.evaluated_model, taken


def assert_close(found: nn.Module, expected: nn.Module, tolerance: float) -> None:
    for name, weights in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], weights, rtol=0, atol=tolerance)


@pytest.mark.parametrize("parts", [2, 3, 5, 100])
@pytest.mark.parametrize("weights", ["null", "balanced", "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"])
def test_accumulated_step_is_the_step(parts: int, weights: str, splits: Splits) -> None:
    loss = f"loss={{name: cross_entropy, label_smoothing: 0.1, class_weights: {weights}}}"
    whole, said = stepped(tiny_recipe(*PLAIN, loss), splits, 61)
    found, also = stepped(tiny_recipe(*PLAIN, loss, f"accumulation={parts}"), splits, 61)
    assert_close(found, whole, 1e-6)
    assert float(also.loss) == pytest.approx(float(said.loss), rel=1e-5)
    assert float(also.hits) == float(said.hits)
    assert float(also.gradient_norm) == pytest.approx(float(said.gradient_norm), rel=1e-4)


def test_accumulation_says_where_it_is_not_the_same_step(splits: Splits) -> None:
    """Batch normalisation sees the parts: the steps differ, and a line says so; without it, neither."""
    cnn = build_model(tiny_recipe().model, splits.train)
    said = describe_accumulation(3, cnn)
    assert said.startswith(
        "accumulation=3 with batch normalisation: each part of a batch is normalised by its own mean"
    )
    assert describe_accumulation(1, cnn) == ""
    assert describe_accumulation(3, build_model(tiny_recipe(*PLAIN).model, splits.train)) == ""
    dry = ("model.dropout=0", "optimiser={name: sgd, learning_rate: 0.1}")
    whole, _ = stepped(tiny_recipe(*dry), splits, 61)
    found, _ = stepped(tiny_recipe(*dry, "accumulation=3"), splits, 61)
    furthest = max(
        float((found.state_dict()[name] - value).abs().max())
        for name, value in whole.state_dict().items()
        if "running" not in name and value.is_floating_point()
    )
    assert furthest > 1e-4  # as the line says


def test_clipped_gradient_is_as_long_as_allowed(splits: Splits) -> None:
    with seed_torch(1):
        before = build_model(tiny_recipe(*PLAIN).model, splits.train)
    after, taken = stepped(tiny_recipe(*PLAIN, "clip_norm=0.01"), splits, 64, steps=1)
    moved = sum(
        float(((now - then) ** 2).sum().detach())
        for now, then in zip(after.parameters(), before.parameters(), strict=True)
    )
    assert moved**0.5 == pytest.approx(0.1 * 0.01, rel=1e-3)  # the learning rate times the longest gradient
    assert float(taken.gradient_norm) > 0.01
    unclipped, _ = stepped(tiny_recipe(*PLAIN, "clip_norm=1e9"), splits, 64)
    assert_close(unclipped, stepped(tiny_recipe(*PLAIN), splits, 64)[0], 0)


def test_average_in_closed_form() -> None:
    network = nn.BatchNorm1d(2)
    average, expected = ExponentialMovingAverage(network, 0.7), np.ones(2)
    for step in range(1, 40):
        nn.init.constant_(network.weight, step)
        assert network.num_batches_tracked is not None
        network.num_batches_tracked.fill_(step)
        average.update(step)
        decay = min(0.7, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    kept = average.model.state_dict()
    assert kept["weight"].numpy() == pytest.approx(expected, rel=1e-5)
    assert int(kept["num_batches_tracked"]) == 39
    assert not any(weight.requires_grad for weight in average.model.parameters())


def test_the_average_is_evaluated_and_kept(splits: Splits) -> None:
    recipe = tiny_recipe("ema=0.9", "epochs=1")
    with seed_torch(recipe.seed):
        network = build_model(recipe.model, splits.train)
    plain = copy.deepcopy(network)
    history = train_model(network, splits, recipe, lambda _: None)
    other = train_model(plain, splits, tiny_recipe("epochs=1"), lambda _: None)
    assert history.best_epoch.train_loss == other.best_epoch.train_loss  # the average does not steer
    assert history.best_epoch.validation_loss != other.best_epoch.validation_loss
    assert not np.array_equal(predict_outputs(network, splits.test.inputs), predict_outputs(plain, splits.test.inputs))


def test_full_batch_is_one_step_in_the_data_own_order() -> None:
    assert loader.resolve_batch_size("full", 130) == 130
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert torch.equal(loader.draw_permutation(130, 130), torch.arange(130))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(loader.draw_permutation(130, 64), torch.arange(130))


def test_bf16_computes_coarsely_and_keeps_fp32_weights(splits: Splits) -> None:
    exact, said = stepped(tiny_recipe(*PLAIN, "precision=fp32"), splits, 64)
    coarse, also = stepped(tiny_recipe(*PLAIN, "precision=bf16"), splits, 64)
    assert float(also.loss) != float(said.loss)
    assert float(also.loss) == pytest.approx(float(said.loss), rel=0.02)
    assert_close(coarse, exact, 0.02)
    assert {weight.dtype for weight in coarse.parameters()} == {torch.float32}


def test_precision_is_automatic(monkeypatch: pytest.MonkeyPatch) -> None:
    assert precision.resolve_precision("auto", CPU) == "fp32"
    assert precision.resolve_precision("bf16", CPU) == "bf16"
    for capability, expected in (((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, found=capability: found)
        assert precision.resolve_precision("auto", torch.device("cuda")) == expected
    assert precision.resolve_precision("fp32", torch.device("cuda")) == "fp32"


def test_best_is_found_again_from_the_epochs_alone(splits: Splits) -> None:
    recipe = tiny_recipe("epochs=4", "optimiser.learning_rate=0.3", "early_stopping.patience=2")
    with seed_torch(recipe.seed):
        network = build_model(recipe.model, splits.train)
    history = train_model(network, splits, recipe, lambda _: None)
    assert EarlyStopping(recipe.early_stopping).replay_epochs(history.epochs) == history.best_epoch
    with pytest.raises(ValueError, match="no epoch yet"):
        EarlyStopping(recipe.early_stopping).replay_epochs([])


def test_compiled_forward_trains_and_the_plain_model_is_judged(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[int]()

    def compiled(function: Callable[..., Any], *, dynamic: bool) -> Callable[..., Any]:  # the real one takes a minute
        assert not dynamic

        def counted(part: torch.Tensor, target: torch.Tensor) -> Any:  # noqa: ANN401
            calls.append(len(part))
            return function(part, target)

        return counted

    monkeypatch.setattr(torch, "compile", compiled)
    found, _ = stepped(tiny_recipe(*PLAIN, "compile=true"), splits, 64)
    assert calls == [64, 64, 64]
    stepper = TrainStep(found.train(), splits.train, tiny_recipe(*PLAIN, "compile=true"))
    for examples in (64, 22, 64):  # of another shape is the last batch of an epoch alone
        inputs, targets = (torch.from_numpy(array[:examples]) for array in (splits.train.inputs, splits.train.targets))
        stepper.take_step(inputs, targets, 0.0, 1)
    assert calls == [64, 64, 64, 64, 64]
    assert_close(found, stepped(tiny_recipe(*PLAIN), splits, 64)[0], 0)


SCHEDULES = (
    "{name: constant, warmup: 0.1}",
    "{name: step, every: 0.3, gamma: 0.3}",
    "{name: exponential, floor: 0.1}",
    "{name: cosine}",
)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", sorted(OPTIMISERS))
def test_every_optimiser_learns_under_every_schedule(name: str, schedule: str, splits: Splits) -> None:
    rate, size = {"gd": (0.3, "full"), "sgd": (0.1, 64), "momentum": (0.1, 64)}.get(name, (0.003, 64))
    ways = (f"optimiser={{name: {name}, learning_rate: {rate}}}", f"schedule={schedule}", f"batch_size={size}")
    recipe = tiny_recipe(PLAIN[0], *ways, "epochs=6", "early_stopping.patience=9")
    with seed_torch(0):
        network = build_model(recipe.model, splits.train)
    epochs = train_model(network, splits, recipe, lambda _: None).epochs
    assert epochs[-1].validation_loss < epochs[0].validation_loss
