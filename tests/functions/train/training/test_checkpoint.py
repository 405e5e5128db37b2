"""A training that is taken apart between any two steps and put together again is the unbroken one, bit for bit."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from functions.train.data.split import Splits
from functions.train.errors import DivergedError, PausedError
from functions.train.models import build
from functions.train.training.checkpoint import CheckpointStore
from functions.train.training.checkpoint_policy import CheckpointPolicy
from functions.train.training.interruption import InterruptionMonitor
from functions.train.training.state import TrainerState
from functions.train.training.trainer import Trainer, seed_torch, train_model
from functions.train.training.training_history import TrainingHistory
from pilotlight.recipes.schema import CheckpointOptions, Recipe
from pilotlight.storage.object_store import ObjectStore, open_store
from tests.fakes import Clock
from tests.functions.train.conftest import tiny_recipe

STEPS_AN_EPOCH = 17  # 1,078 training digits in batches of 64
WAYS = [
    ["optimiser={name: adam, learning_rate: 0.01}"],
    ["optimiser={name: sgd, learning_rate: 0.1}", "ema=0.9"],
    ["optimiser={name: momentum, learning_rate: 0.1}", "clip_norm=0.5"],
    ["optimiser={name: adagrad, learning_rate: 0.01}", "accumulation=3"],
    ["optimiser={name: rmsprop, learning_rate: 0.001, weight_decay: 0.01}"],
    ["optimiser={name: adamw, learning_rate: 0.01}", "precision=bf16", "schedule={name: constant}"],
    ["optimiser={name: gd, learning_rate: 0.1}", "batch_size=full", "epochs=5", "early_stopping.patience=1"],
]  # fmt: skip


class StopAt:
    """A keeper that ends the training after a step, with a snapshot."""

    def __init__(self, step: int, start: TrainerState | None = None) -> None:
        self.step, self.start = step, start
        self.kept: TrainerState | None = None

    def load_newest(self) -> TrainerState | None:
        return self.start

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step_count == self.step:
            self.kept = trainer.capture_state()
            raise PausedError("enough")

    def save(self, trainer: Trainer) -> None:
        self.kept = trainer.capture_state()


def trained(
    recipe: Recipe, splits: Splits, keeper: StopAt | CheckpointPolicy | None = None
) -> tuple[nn.Module, TrainingHistory]:
    with seed_torch(recipe.seed):
        network = build.build_model(recipe.model, splits.train)
    return network, train_model(network, splits, recipe, lambda _: None, keeper)


def stopped(recipe: Recipe, splits: Splits, step: int, start: TrainerState | None = None) -> TrainerState:
    keeper = StopAt(step, start)
    with pytest.raises(PausedError):
        trained(recipe, splits, keeper)
    assert keeper.kept is not None
    return keeper.kept


def assert_same(found: tuple[nn.Module, TrainingHistory], expected: tuple[nn.Module, TrainingHistory]) -> None:
    for name, weights in expected[0].state_dict().items():
        assert torch.equal(found[0].state_dict()[name], weights), name
    for ours, theirs in zip(found[1].epochs, expected[1].epochs, strict=True):
        assert (ours.train_loss, ours.validation_loss) == (theirs.train_loss, theirs.validation_loss)
    assert found[1].best_epoch.number == expected[1].best_epoch.number


def checkpoints(store: ObjectStore, recipe: str = "a" * 64) -> CheckpointStore:
    return CheckpointStore(store, "runs/r/checkpoints", recipe)


@pytest.fixture(scope="module")
def snapshots(splits: Splits) -> list[TrainerState]:
    return [stopped(tiny_recipe(), splits, step) for step in (2, 5, 20)]


@pytest.mark.parametrize("ways", WAYS, ids=[ways[0] for ways in WAYS])
def test_resumed_training_is_the_unbroken_one(ways: list[str], splits: Splits) -> None:
    recipe = tiny_recipe(*ways)
    expected = trained(recipe, splits)
    last = STEPS_AN_EPOCH * recipe.epochs if recipe.batch_size != "full" else len(expected[1].epochs)
    first, second = sorted(random.Random(3).sample(range(1, last), 2))  # noqa: S311 - no secret
    store = open_store("memory://")
    for step, start in ((first, None), (second, first)):
        before = None if start is None else checkpoints(store).load_newest(print)
        checkpoints(store).write_state(stopped(recipe, splits, step, before))
    assert_same(trained(recipe, splits, StopAt(-1, checkpoints(store).load_newest(print))), expected)


def test_end_of_an_epoch_and_of_the_training_are_boundaries_too(splits: Splits) -> None:
    recipe = tiny_recipe()
    expected = trained(recipe, splits)
    for step in (STEPS_AN_EPOCH, 2 * STEPS_AN_EPOCH):
        assert_same(trained(recipe, splits, StopAt(-1, stopped(recipe, splits, step))), expected)
    finished = StopAt(-1)
    trained(recipe, splits, finished)
    assert_same(trained(recipe, splits, StopAt(-1, finished.kept)), expected)


def test_the_last_two_are_kept(snapshots: list[TrainerState]) -> None:
    store = open_store("memory://")
    for snapshot in snapshots:
        checkpoints(store).write_state(snapshot)
    assert checkpoints(store).list_steps() == [20, 5]
    checkpoints(store).delete_all()
    assert list(store.list_paths("runs")) == []


def test_no_checkpoint_is_no_snapshot() -> None:
    assert checkpoints(open_store("memory://")).load_newest(print) is None


def flip(store: ObjectStore, path: str) -> None:
    data = bytearray(store.get(path).data)
    data[len(data) // 2] ^= 1
    store.put(path, bytes(data))


def drop(store: ObjectStore, path: str) -> None:
    store.delete(path)


def cut(store: ObjectStore, path: str) -> None:
    store.put(path, store.get(path).data[:-9])


@pytest.mark.parametrize("harm", [flip, drop, cut])
@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_broken_newest_falls_back_and_says_so(
    harm: Callable[[ObjectStore, str], None], name: str, snapshots: list[TrainerState]
) -> None:
    store, said = open_store("memory://"), list[str]()
    for snapshot in snapshots[:2]:
        checkpoints(store).write_state(snapshot)
    harm(store, f"runs/r/checkpoints/step-5/{name}")
    found = checkpoints(store).load_newest(said.append)
    assert found is not None
    assert found.position == snapshots[0].position
    assert all(torch.equal(found.tensors[path], tensor) for path, tensor in snapshots[0].tensors.items())
    assert len(said) == 1
    assert said[0].startswith("skipped the checkpoint of step 5: ")
    assert checkpoints(store).list_steps() == [2]


def test_checkpoint_of_another_recipe_or_schema_is_none(snapshots: list[TrainerState]) -> None:
    store, said = open_store("memory://"), list[str]()
    checkpoints(store).write_state(snapshots[0])
    assert checkpoints(store, "b" * 64).load_newest(said.append) is None
    checkpoints(store).write_state(snapshots[0])
    path = "runs/r/checkpoints/step-2/manifest.json"
    store.put(path, store.get(path).data.replace(b'"schema_version": 1', b'"schema_version": 2'))
    assert checkpoints(store).load_newest(said.append) is None
    assert [sentence.split(": ", 1)[1] for sentence in said] == [
        "it was written with another recipe.",
        "its schema version is 2, not 1.",
    ]


def test_manifest_is_the_last_file_to_be_written(snapshots: list[TrainerState]) -> None:
    written = list[str]()

    class Recording(ObjectStore):
        def __init__(self) -> None:
            inner = open_store("memory://")
            super().__init__(inner.url, inner._store)

        def put(self, path: str, data: bytes | Path) -> None:
            written.append(path.rsplit("/", 1)[-1])
            super().put(path, data)

        def create(self, path: str, data: bytes) -> None:
            written.append(path.rsplit("/", 1)[-1])
            super().create(path, data)

    checkpoints(Recording()).write_state(snapshots[0])
    assert written == ["tensors.safetensors", "state.json", "manifest.json"]


def kept(
    splits: Splits, options: CheckpointOptions, interruption: InterruptionMonitor, clock: Clock
) -> tuple[CheckpointStore, str]:
    """Train under a keeper whose clock gains a second per step; what there is then, and how it ended."""
    store, recipe = checkpoints(open_store("memory://")), tiny_recipe("epochs=1")
    keeper = CheckpointPolicy(store, options, interruption, lambda _: None, clock)

    class Ticking(StopAt):
        def load_newest(self) -> TrainerState | None:
            return keeper.load_newest()

        def on_step_end(self, trainer: Trainer) -> None:
            clock.tick(1)
            keeper.on_step_end(trainer)

        def save(self, trainer: Trainer) -> None:
            pass

    try:
        trained(recipe, splits, Ticking(-1))
    except PausedError as exc:
        return store, str(exc)
    keeper.finish()
    return store, ""


def test_saves_every_so_many_seconds_or_steps(splits: Splits) -> None:
    by_steps = kept(splits, CheckpointOptions(seconds=None, steps=6), InterruptionMonitor(), Clock())
    assert (by_steps[0].list_steps(), by_steps[1]) == ([12, 6], "")
    by_seconds = kept(splits, CheckpointOptions(seconds=4.5), InterruptionMonitor(), Clock())
    assert (by_seconds[0].list_steps(), by_seconds[1]) == ([15, 10], "")
    never = kept(splits, CheckpointOptions(seconds=None), InterruptionMonitor(), Clock())
    assert (never[0].list_steps(), never[1]) == ([], "")


def test_end_of_the_time_budget_saves_and_ends(splits: Splits) -> None:
    clock = Clock()
    found, said = kept(splits, CheckpointOptions(seconds=None), InterruptionMonitor(7.0, clock), clock)
    assert found.list_steps() == [7]
    assert said.startswith("Stopped at the end of the time budget of 7 s and saved after step 7; start the same run")


def test_what_is_not_a_number_is_not_saved(splits: Splits) -> None:
    keeper = StopAt(4)
    with pytest.raises(DivergedError, match=r"diverged in epoch 1: training loss nan after step 4; try a smaller"):
        trained(tiny_recipe("optimiser.learning_rate=1e30"), splits, keeper)
    assert keeper.kept is None
