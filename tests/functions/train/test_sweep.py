"""Every optimiser trains under every schedule, and the runs stand side by side in one table."""

import json
import math
from itertools import product
from pathlib import Path

import pytest

from functions.train.data.load import load_dataset
from functions.train.data.split import split_dataset
from functions.train.pipeline import build_and_train, create_checkpoint_policy, create_epoch_callback
from functions.train.run_folder import RunFolder
from functions.train.training.interruption import InterruptionMonitor
from functions.train.training.optimiser import OPTIMISERS
from functions.train.training.schedule import SCHEDULES
from pilotlight.cli import app
from pilotlight.recipes.schema import Recipe, load_recipe
from pilotlight.storage.object_store import open_store
from tests.functions.train.conftest import silence

FORMS = {  # of the schedules: each with a warm-up
    "constant": "schedule={name: constant, warmup: 0.1}",
    "step": "schedule={name: step, every: 0.3, gamma: 0.5, warmup: 0.1}",
    "exponential": "schedule={name: exponential, floor: 0.1, warmup: 0.1}",
    "cosine": "schedule={name: cosine, warmup: 0.1}",
}
EPOCHS = 12


def recipe(optimiser: str, schedule: str) -> Recipe:
    rate = 0.1 if optimiser in ("gd", "sgd", "momentum") else 0.01
    form = f"optimiser={{name: {optimiser}, learning_rate: {rate}}}"
    return load_recipe(
        "wine", ["name=sweep", f"epochs={EPOCHS}", "model.dropout=0", "folds=null", form, FORMS[schedule]]
    )


@pytest.fixture
def swept(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The store with a run of each pair."""
    url = str(tmp_path_factory.mktemp("sweep"))
    store = open_store(url)
    wine = load_dataset(recipe("gd", "constant").data)
    for pair in product(OPTIMISERS, SCHEDULES):
        chosen = recipe(*pair)
        journal = RunFolder(store, chosen, "sweep-" + "-".join(pair))
        keep = create_checkpoint_policy(journal, "checkpoints", chosen, silence(), InterruptionMonitor())
        with journal.track_status():
            splits, watch = split_dataset(wine, chosen.data), create_epoch_callback(chosen, silence(), journal)
            build_and_train(chosen, splits, watch, keep, Path())
    return url


def compared(store: str, capfd: pytest.CaptureFixture[str], *words: str) -> str:
    capfd.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["pilotlight", "runs", "compare", "sweep-*", "--store", store, *words])
        with pytest.raises(SystemExit) as ended:
            app()
    assert not ended.value.code
    return capfd.readouterr().out


def test_every_optimiser_under_every_schedule(swept: str, capfd: pytest.CaptureFixture[str]) -> None:
    said = json.loads(compared(swept, capfd, "--json"))
    assert len(said["runs"]) == len(OPTIMISERS) * len(SCHEDULES) == 28
    assert {"optimiser.name", "schedule.name"} <= set(said["differing"])
    for run in said["runs"]:
        assert run["state"] == "finished"
        assert run["epochs"] == EPOCHS
        assert math.isfinite(run["train_loss"] + run["validation_loss"])
        assert run["train_loss"] < math.log(3)  # what guessing costs: each has learned something
    table = compared(swept, capfd)
    assert sum("│ sweep-" in line for line in table.splitlines()) == 28
    for word in ("adamw, learning_rate 0.01", "step, every 0.3, gamma 0.5", "final validation loss"):
        assert word in table
