"""Everything that a run made and measured, to be published as a version."""

from dataclasses import dataclass
from pathlib import Path

from functions.train.data.folds import FoldScores
from functions.train.data.split import Splits
from functions.train.evaluation.quantization_report import QuantizationReport
from pilotlight.contracts.manifest import ExportParity, Precision, Standardization, TensorSpec, TrainingRecord
from pilotlight.recipes.schema import Recipe
from pilotlight.runtime.golden import GoldenDocument


@dataclass(frozen=True, kw_only=True)
class TrainingArtifacts:
    """Everything that a run made and measured."""

    recipe: Recipe
    run_name: str  # its folder below runs/ in the store
    graphs: dict[Precision, Path]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    parity: ExportParity
    report: QuantizationReport
    golden: GoldenDocument
    splits: Splits
    folds: FoldScores | None  # where the recipe asks for a cross-validation
    plots: dict[str, bytes]  # by file name
    training: TrainingRecord
    input_standardization: Standardization | None
    output_standardization: Standardization | None
    source: str | None = None  # of a model of the user's own
