"""What a run has trained, exported and measured, gathered into the artifacts that are published."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from functions.train.data.folds import FoldScores
from functions.train.data.split import Splits
from functions.train.evaluation.quantization_report import QuantizationReport
from functions.train.export.artifacts import TrainingArtifacts
from functions.train.models import build
from functions.train.publish import get_code_revision
from functions.train.training import precision
from functions.train.training.device import get_process_device
from functions.train.training.training_history import TrainingHistory
from pilotlight.contracts.manifest import ExportParity, Precision, TrainingRecord
from pilotlight.recipes.schema import Recipe
from pilotlight.runtime.golden import GoldenDocument
from pilotlight.runtime.session import open_session


@dataclass(frozen=True)
class TrainedModel:
    """A trained network, and what is known of it before it is exported."""

    network: nn.Module
    history: TrainingHistory
    splits: Splits
    folds: FoldScores | None  # where the recipe asks for a cross-validation
    source: str | None  # of a model of the user's own


@dataclass(frozen=True)
class ExportedModel:
    """The graphs of a network, and what was measured on them."""

    graphs: dict[Precision, Path]
    opset: int
    parity: ExportParity
    report: QuantizationReport
    golden: GoldenDocument
    plots: dict[str, bytes]  # by file name


def build_artifacts(recipe: Recipe, run_name: str, trained: TrainedModel, exported: ExportedModel) -> TrainingArtifacts:
    """Gather everything that the run made and measured."""
    session, splits, network = open_session(str(exported.graphs["fp32"])), trained.splits, trained.network
    return TrainingArtifacts(
        recipe=recipe,
        run_name=run_name,
        graphs=exported.graphs,
        inputs=session.inputs,
        outputs=session.outputs,
        opset=exported.opset,
        parity=exported.parity,
        report=exported.report,
        golden=exported.golden,
        splits=splits,
        folds=trained.folds,
        plots=exported.plots,
        training=build_provenance(recipe, splits, trained.history),
        input_standardization=build.find_scaling(network, build.Standardise, build.name_network_inputs(splits.train)),
        output_standardization=build.find_scaling(network, build.Rescale, ("prediction",)),
        source=trained.source,
    )


def build_provenance(recipe: Recipe, splits: Splits, history: TrainingHistory) -> TrainingRecord:
    """Build the record of where the version comes from, enough to train it again."""
    return TrainingRecord(
        recipe=recipe.model_dump(mode="json"),
        data_sha256=splits.sha256,
        seed=recipe.seed,
        revision=get_code_revision(),
        device=get_device_name(),
        precision=precision.resolve_precision(recipe.precision, get_process_device()),
        wall_s=sum(epoch.seconds for epoch in history.epochs),
    )


def get_device_name() -> str:
    """Return the device's name for the manifest."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
