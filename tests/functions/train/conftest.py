"""The real digits, a recipe that takes a second, and one whole run of it."""

import gc
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch import nn

from functions.train import pipeline as protocol
from functions.train import publish
from functions.train.data.load import load_dataset
from functions.train.data.split import Splits, split_dataset
from functions.train.export.artifacts import TrainingArtifacts
from functions.train.export.onnx_export import export_onnx
from functions.train.models import build
from functions.train.pipeline import RunOutcome, run_recipe
from functions.train.progress import ProgressReporter
from functions.train.training import trainer
from functions.train.training.trainer import limit_torch_threads, seed_torch
from pilotlight.contracts.manifest import Manifest
from pilotlight.recipes.schema import Recipe, load_recipe
from pilotlight.registry.registry import Registry, version_path
from pilotlight.storage.object_store import ObjectStore, open_store

TINY = ("name=tiny", "epochs=2", "model.channels=[4, 8]", "model.hidden=16", "data.calibration=32")


def tiny_recipe(*overrides: str) -> Recipe:
    """The recipe of record, shrunk to a second."""
    return load_recipe("digits", [*TINY, *overrides])


def silence() -> ProgressReporter:
    """A progress that nobody sees."""
    return ProgressReporter(Console(file=io.StringIO()))


@dataclass(frozen=True)
class Finished:
    """A run, the store it published to, and what it handed to the registry."""

    outcome: RunOutcome
    store: ObjectStore
    product: TrainingArtifacts | None = None

    def file(self, name: str) -> bytes:
        """A file of the published version."""
        return self.store.get(version_path("tiny", 1, name)).data


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Torch's threads spin for each other; beside other work, two take many times as long as one."""
    with limit_torch_threads(1):
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_collection() -> Iterator[None]:
    """Trainings spare the collector all that lives when they begin, and collect before that.

    Here that is every object of pytest, hypothesis and moto, which takes longer than most of these trainings.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "gc", SimpleNamespace(collect=lambda: 0, freeze=gc.freeze, unfreeze=gc.unfreeze))
        yield


@pytest.fixture(scope="session")
def splits() -> Splits:
    options = tiny_recipe().data
    return split_dataset(load_dataset(options), options)


@pytest.fixture(scope="session")
def tiny() -> Finished:
    store, handed = open_store("memory://"), list[TrainingArtifacts]()

    def keep(product: TrainingArtifacts, registry: Registry) -> Manifest:
        handed.append(product)
        return publish.publish_artifacts(product, registry)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "publish_artifacts", keep)
        outcome = run_recipe(tiny_recipe(), store, silence())
    return Finished(outcome, store, handed[0])


@pytest.fixture(scope="session")
def untrained(splits: Splits) -> nn.Module:
    """A model as it was drawn, its batch normalisation aside, which has seen some images."""
    with seed_torch(7):
        network = build.build_model(tiny_recipe().model, splits.train)
        with torch.no_grad():
            network.train()(torch.from_numpy(splits.train.inputs[:64]))
    return network.eval()


@pytest.fixture(scope="session")
def graph(untrained: nn.Module, splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untrained model, exported."""
    path = tmp_path_factory.mktemp("graphs") / "model.fp32.onnx"
    assert export_onnx(untrained, splits.train, tiny_recipe().export, path) == 20
    return path


@pytest.fixture
def empty() -> Registry:
    """A registry to fail to publish into."""
    return Registry(open_store("memory://"))
