"""Run all processes but the main one: they take part in the trainings of a run, and in nothing else.

A worker runs the trainings of `pipeline` in the same order, and ends before the model is evaluated, exported or
published.
"""

from pathlib import Path

from functions.train.data.files import DataRoot
from functions.train.data.load import load_splits
from functions.train.data.split import Splits, scale_targets
from functions.train.distributed import consensus
from functions.train.distributed.process_group import ProcessGroup
from functions.train.models import build
from functions.train.training.checkpoint import CheckpointStore
from functions.train.training.checkpoint_policy import CheckpointPolicy
from functions.train.training.interruption import InterruptionMonitor
from functions.train.training.trainer import seed_torch, train_model
from pilotlight.recipes.schema import Recipe
from pilotlight.storage.object_store import ObjectStore


def run_worker(
    recipe: Recipe, store: ObjectStore, interruption: InterruptionMonitor, folder: Path, process_group: ProcessGroup
) -> None:
    """Take part in every training of a run; in none where the run has published already."""
    checkpoint_policy = CheckpointPolicy(
        CheckpointStore(store, "runs", ""), recipe.checkpoint, interruption, lambda _: None, process_group=process_group
    )
    if consensus.is_run_published(process_group):
        return
    data_root = DataRoot(folder, store)
    splits = load_splits(recipe.data, data_root)
    consensus.check_same_data(process_group, splits, recipe.data.name)
    if recipe.folds:
        for parts in consensus.load_remaining_folds(process_group, recipe, data_root)[1]:
            run_training(recipe, parts, checkpoint_policy, folder, process_group)
    run_training(recipe, splits, checkpoint_policy, folder, process_group)


def run_training(
    recipe: Recipe, splits: Splits, checkpoint_policy: CheckpointPolicy, folder: Path, process_group: ProcessGroup
) -> None:
    """Run one training, like `pipeline.build_and_train`."""
    with seed_torch(recipe.seed):
        network = build.build_model(recipe.model, splits.train, folder)
    train_model(network, scale_targets(splits), recipe, lambda _: None, checkpoint_policy, process_group)
