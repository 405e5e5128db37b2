"""What a process does that trains together with others and is not their lead: the trainings, and nothing else.

It follows `run` through its trainings and leaves before anything is judged, exported or written.
"""

from pathlib import Path

from functions.train.data import dataset
from functions.train.data.dataset import Splits
from functions.train.data.files import Place
from functions.train.distributed import consensus
from functions.train.distributed.process_group import World
from functions.train.models import build
from functions.train.training.checkpoint import Checkpoints
from functions.train.training.checkpoint_policy import Keeper
from functions.train.training.interruption import Interruption
from functions.train.training.trainer import seeded, train
from pilotlight.recipes.schema import Recipe
from pilotlight.storage.object_store import ObjectStore


def follow(recipe: Recipe, store: ObjectStore, interruption: Interruption, folder: Path, world: World) -> None:
    """Do this process's share of every training of a run; nothing, where the run has published already."""
    keeper = Keeper(Checkpoints(store, "runs", ""), recipe.checkpoint, interruption, lambda _: None, world=world)
    if consensus.published(world):
        return
    place = Place(folder, store)
    splits = dataset.shared(recipe.data, place)
    consensus.same_data(world, splits, recipe.data.name)
    if recipe.folds:
        for parts in consensus.folds_left(world, recipe, place)[1]:
            share(recipe, parts, keeper, folder, world)
    share(recipe, splits, keeper, folder, world)


def share(recipe: Recipe, splits: Splits, keeper: Keeper, folder: Path, world: World) -> None:
    """One training, as `run.fit` has it."""
    with seeded(recipe.seed):
        network = build.build(recipe.model, splits.train, folder)
    train(network, dataset.scaled(splits), recipe, lambda _: None, keeper, world)
