"""What a process does that trains together with others and is not their lead: the trainings, and nothing else.

It follows `run` through its trainings and leaves before anything is judged, exported or written.
"""

from pathlib import Path

from functions.train import accord, data, model
from functions.train.checkpoint import Checkpoints
from functions.train.data import Splits
from functions.train.interruption import Interruption
from functions.train.keeper import Keeper
from functions.train.loop import seeded, train
from functions.train.source import Place
from functions.train.world import World
from pilotlight.recipes.recipe import Recipe
from pilotlight.storage import ObjectStore


def follow(recipe: Recipe, store: ObjectStore, interruption: Interruption, folder: Path, world: World) -> None:
    """Do this process's share of every training of a run; nothing, where the run has published already."""
    keeper = Keeper(Checkpoints(store, "runs", ""), recipe.checkpoint, interruption, lambda _: None, world=world)
    if accord.published(world):
        return
    place = Place(folder, store)
    splits = data.shared(recipe.data, place)
    accord.same_data(world, splits, recipe.data.name)
    if recipe.folds:
        for parts in accord.folds_left(world, recipe, place)[1]:
            share(recipe, parts, keeper, folder, world)
    share(recipe, splits, keeper, folder, world)


def share(recipe: Recipe, splits: Splits, keeper: Keeper, folder: Path, world: World) -> None:
    """One training, as `run.fit` has it."""
    with seeded(recipe.seed):
        network = model.build(recipe.model, splits.train, folder)
    train(network, data.scaled(splits), recipe, lambda _: None, keeper, world)
