"""The loop keeps its best weights, repeats itself, and stops at the first number that is none."""

import json
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from functions.train.data.files import DataRoot
from functions.train.data.load import load_splits
from functions.train.data.split import Splits, scale_targets
from functions.train.errors import DivergedError
from functions.train.evaluation.metric_check import check_metrics
from functions.train.evaluation.metrics import score_outputs
from functions.train.models import build
from functions.train.training.prediction import evaluate_network, predict_outputs
from functions.train.training.trainer import compute_learning_rates, seed_torch, train_model
from functions.train.training.training_history import EarlyStopping, EpochMetrics, TrainingHistory
from pilotlight.contracts.metric import METRICS
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import CosineOptions, Recipe, StoppingOptions, load_recipe
from tests.functions.train.conftest import tiny_recipe


def epoch(number: int, validation_loss: float) -> EpochMetrics:
    return EpochMetrics(number, 1.0, 0.5, validation_loss, 0.5, 1e-3, 0.1)


def trained(recipe: Recipe, splits: Splits) -> tuple[nn.Module, TrainingHistory]:
    with seed_torch(recipe.seed):
        network = build.build_model(recipe.model, splits.train)
    return network, train_model(network, splits, recipe, lambda _: None)


def run_through(losses: list[float], options: StoppingOptions) -> tuple[int, float, int]:
    """The number of epochs run, the weight that is restored, and the epoch said to be the best."""
    network, stopping = nn.Linear(1, 1, bias=False), EarlyStopping(options)
    number = 0
    for number, loss in enumerate(losses, 1):
        nn.init.constant_(network.weight, number)
        if stopping.record_epoch(epoch(number, loss), network):
            break
    best = stopping.restore_best_weights(network)
    return number, network.weight.item(), best.number


@pytest.mark.parametrize(
    ("losses", "patience", "min_delta", "expected"),
    [
        ([1.0, 0.5, 0.6, 0.7, 0.1], 2, 0.0, (4, 2.0, 2)),
        ([1.0, 0.5, 0.6, 0.4, 0.9], 2, 0.0, (5, 4.0, 4)),
        ([1.0, 0.95, 0.91, 0.5], 2, 0.1, (3, 1.0, 1)),
        ([1.0, 1.0, 1.0], 5, 0.0, (3, 1.0, 1)),
    ],
)
def test_early_stopping_restores_the_best_weights(
    losses: list[float], patience: int, min_delta: float, expected: tuple[int, float, int]
) -> None:
    assert run_through(losses, StoppingOptions(patience=patience, min_delta=min_delta)) == expected


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("f1", [0.5, 0.9, 0.8, 0.7], (4, 2.0, 2)),  # higher is better
        ("mae", [5.0, 3.0, 4.0, 4.0], (4, 2.0, 2)),  # lower is
        ("auc", [None, 0.6, 0.7, 0.6], (4, 3.0, 3)),  # an undefined one is the worst
    ],
)
def test_weights_of_the_best_metric_are_kept_whatever_the_loss(
    metric: str, values: list[float | None], expected: tuple[int, float, int]
) -> None:
    network, stopping = nn.Linear(1, 1, bias=False), EarlyStopping(StoppingOptions(patience=2))
    for number, value in enumerate(values, 1):
        nn.init.constant_(network.weight, number)
        told = replace(epoch(number, -number), monitored=metric, monitored_value=value)  # the loss falls all the time
        if stopping.record_epoch(told, network):
            break
    best = stopping.restore_best_weights(network)
    assert (number, network.weight.item(), best.number) == expected


@pytest.mark.parametrize("metric", ["f1", "auc", "top_3", "log_loss"])
def test_training_stops_by_the_metric_that_is_named(metric: str, splits: Splits) -> None:
    recipe = tiny_recipe("epochs=4", "optimiser.learning_rate=0.3", f"early_stopping={{patience: 4, metric: {metric}}}")
    network, history = trained(recipe, splits)
    values = [one.monitored_value for one in history.epochs]
    assert all(one.monitored == metric for one in history.epochs)
    kind = METRICS[metric]
    best = (max if kind.higher_is_better else min)(value for value in values if value is not None)
    assert history.best_epoch.monitored_value == best
    found = evaluate_network(network, splits.validation, (metric,))  # of the weights that were kept
    assert found.metrics[metric] == pytest.approx(best, rel=1e-12)


def test_numbers_are_monitored_in_their_own_unit() -> None:
    recipe = load_recipe("diabetes", ["epochs=3", "early_stopping={patience: 5, metric: mae}"])
    plain = load_splits(recipe.data, DataRoot())
    network, history = trained(recipe, scale_targets(plain))
    score = evaluate_network(build.restore_scale(network, plain.train), plain.validation)
    assert history.best_epoch.monitored_value == pytest.approx(score.metrics["mae"], rel=1e-5)
    assert score.metrics["mae"] > 20  # of a disease's progression, 25 to 346


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        (
            "digits",
            ["early_stopping.metric=mae"],
            "early_stopping.metric is 'mae', and the targets are classes; it must",
        ),
        (
            "diabetes",
            ["early_stopping.metric=f1"],
            "is 'f1', and the targets are numbers; it must be r2, mae, rmse or mape",
        ),
        ("wine", ["early_stopping.metric=top_3"], "is 'top_3', and there are 3 classes, so that it is always 1"),
    ],
)
def test_metric_of_other_targets_is_refused_before_the_training(name: str, overrides: list[str], said: str) -> None:
    recipe = load_recipe(name, overrides)
    with pytest.raises(InvalidInputError, match=said):
        check_metrics(recipe, load_splits(recipe.data, DataRoot()))


def test_curve_of_one_class_alone_is_refused(splits: Splits) -> None:
    alone = splits.validation.select(np.flatnonzero(splits.validation.targets == 3))
    with pytest.raises(InvalidInputError, match="'auc', and the validation set has examples of one class alone"):
        check_metrics(tiny_recipe("early_stopping.metric=auc"), replace(splits, validation=alone))


@pytest.mark.parametrize("name", ["validation", "test"])
def test_numbers_that_are_alike_in_a_set_are_refused_where_r2_judges(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.csv").write_text("x,y\n" + "".join(f"{n},{n * 1.5}\n" for n in range(30)))
    (tmp_path / "own.csv").write_text("x,y\n99,7.5\n")
    shares = {"train": 0.8, "validation": 0.2, "test": 0.2, name: 0.0}
    data = {"path": "mine.csv", "target": "y", name: "own.csv", "fractions": shares}
    for metric, said in ((None, f"'r2', and the {name} set has the target 7.5 alone"), ("mae", "")):
        recipe = load_recipe("iris", [f"data={json.dumps(data | {'metric': metric})}", "folds=null"])
        splits = load_splits(recipe.data, DataRoot(tmp_path))
        with pytest.raises(InvalidInputError, match=said) if said else nullcontext():
            check_metrics(recipe, splits)


def test_shares_of_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("x,y\n" + "".join(f"{n},{n % 2 * 1.5}\n" for n in range(30)))
    shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
    data = {"path": "mine.csv", "target": "y", "metric": "mape", "fractions": shares}
    recipe = load_recipe("iris", [f"data={json.dumps(data)}", "folds=null"])
    with pytest.raises(InvalidInputError, match=r"'mape', and the validation set has \d targets of 0, of which"):
        check_metrics(recipe, load_splits(recipe.data, DataRoot(tmp_path)))


def test_there_is_nothing_to_restore_before_the_first_epoch() -> None:
    with pytest.raises(ValueError, match="no epoch yet"):
        EarlyStopping(StoppingOptions(patience=1)).restore_best_weights(nn.Linear(1, 1))


def test_trained_model_is_the_best_epochs(splits: Splits) -> None:
    recipe = tiny_recipe("epochs=4", "optimiser.learning_rate=0.3", "early_stopping.patience=2")
    network, history = trained(recipe, splits)
    judged = score_outputs(
        predict_outputs(network, splits.validation.inputs), splits.validation.targets, splits.train.classes
    )
    assert judged.loss == history.best_epoch.validation_loss == min(epoch.validation_loss for epoch in history.epochs)
    assert [epoch.number for epoch in history.epochs] == list(range(1, len(history.epochs) + 1))


def test_same_seed_same_weights_bit_for_bit(splits: Splits) -> None:
    first, again, other = (trained(tiny_recipe(f"seed={seed}", "epochs=1"), splits)[0] for seed in (3, 3, 4))
    for name, weights in first.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name]), name
    assert any(not torch.equal(weights, other.state_dict()[name]) for name, weights in first.state_dict().items())


def test_training_leaves_the_callers_random_numbers_and_threads_alone(splits: Splits) -> None:
    torch.manual_seed(11)
    expected, before = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(11)
    trained(tiny_recipe("epochs=1", "threads=3"), splits)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == before


def test_training_learns(splits: Splits) -> None:
    _, history = trained(tiny_recipe("epochs=4", "optimiser.learning_rate=0.01", "model.dropout=0"), splits)
    first, last = history.epochs[0], history.epochs[-1]
    assert last.train_loss < first.train_loss
    assert last.validation_accuracy > 0.8


def test_learning_rates_go_on_from_epoch_to_epoch() -> None:
    recipe = tiny_recipe("epochs=3")
    rates = [rate for number in (1, 2, 3) for rate in compute_learning_rates(recipe, 130, number)]
    assert len(rates) == 9  # 130 examples are three batches of at most 64
    assert max(rates) == recipe.optimiser.learning_rate
    assert isinstance(recipe.schedule, CosineOptions)
    assert rates[-1] == pytest.approx(recipe.schedule.floor * recipe.optimiser.learning_rate)


@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_batched_is_single(untrained: nn.Module, splits: Splits, size: int) -> None:
    images = splits.test.inputs[:64]
    assert predict_outputs(untrained, images, size) == pytest.approx(predict_outputs(untrained, images), abs=1e-5)


def test_divergence_ends_the_training(splits: Splits) -> None:
    with pytest.raises(DivergedError, match=r"diverged in epoch 1: .* try a smaller optimiser\.learning_rate"):
        trained(tiny_recipe("optimiser.learning_rate=1e30"), splits)


def test_model_takes_raw_pixels(untrained: nn.Module, splits: Splits) -> None:
    scaled = untrained[0](torch.from_numpy(splits.train.inputs))  # type: ignore[index]  # a Sequential
    assert float(scaled.mean()) == pytest.approx(0, abs=1e-4)
    assert float(scaled.std()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("channels", ["[4]", "[4, 4, 4, 4, 4, 4]"])
def test_network_of_any_depth_answers(splits: Splits, channels: str) -> None:
    network = build.build_model(tiny_recipe(f"model.channels={channels}").model, splits.train)
    assert predict_outputs(network, splits.test.inputs[:3]).shape == (3, 10)


def test_score_in_closed_form() -> None:
    logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.2, 0.7, 0.1]]) + 1000  # shifting logits changes nothing
    judged = score_outputs(logits, np.array([0, 2, 0]), ("a", "b", "c"))
    assert judged.accuracy == pytest.approx(2 / 3)
    assert judged.loss == pytest.approx(-(math.log(0.5) + math.log(0.8) + math.log(0.2)) / 3)
    assert judged.per_class == {"a": 0.5, "c": 1.0}


def test_loss_is_torchs(untrained: nn.Module, splits: Splits) -> None:
    logits = predict_outputs(untrained, splits.test.inputs)
    expected = nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(splits.test.targets)).item()
    assert score_outputs(logits, splits.test.targets, splits.test.classes).loss == pytest.approx(expected, rel=1e-5)


def test_epoch_that_is_not_finite_is_never_the_best(splits: Splits) -> None:
    network = nn.Linear(1, 1)
    stopping = EarlyStopping(StoppingOptions(patience=9))
    stopping.record_epoch(epoch(1, 1.0), network)
    stopping.record_epoch(replace(epoch(2, 1.0), validation_loss=math.nan), network)
    assert stopping.restore_best_weights(network).number == 1
