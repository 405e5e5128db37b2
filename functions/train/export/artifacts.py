"""Everything that a run made and measured, on its way into a version."""

from dataclasses import dataclass
from pathlib import Path

from functions.train.data.dataset import Splits
from functions.train.data.folds import Folds
from functions.train.evaluation.quantization_report import Report
from pilotlight.contracts.manifest import Parity, Precision, Scaling, TensorSpec, Training
from pilotlight.recipes.schema import Recipe
from pilotlight.runtime.golden import Golden


@dataclass(frozen=True, kw_only=True)
class Product:
    """Everything that a run made and measured."""

    recipe: Recipe
    run: str  # its folder below runs/ in the store
    graphs: dict[Precision, Path]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    parity: Parity
    report: Report
    golden: Golden
    splits: Splits
    folds: Folds | None  # where the recipe asks for a cross-validation
    pictures: dict[str, bytes]  # by file name
    training: Training
    preprocessing: Scaling | None
    postprocessing: Scaling | None
    source: str | None = None  # of a model of the user's own
