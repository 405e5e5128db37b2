"""The profile that captured requests are compared with: of the training set, and of predictions on the held sets.

Not of predictions on the training set: a model is more confident on what it learned from, so every caller would look
like drift (infra/decisions/0040). For a stream, the training set is the calibration sample.
"""

from math import prod
from pathlib import Path

import numpy as np

from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.data.pixels import Pixels
from functions.train.data.split import Splits
from functions.train.export.onnx_export import get_tensor_names
from functions.train.export.quantize import run_graph
from pilotlight.contracts.feature_profile import FeatureProfile
from pilotlight.contracts.manifest import ManifestDraft
from pilotlight.contracts.processing import ClassificationPostprocessing
from pilotlight.drift.training_profile import ANSWERED, EXAMPLES, build_profile, sample_row_indices
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import CaptureOptions
from pilotlight.runtime.session import Session, open_session

BATCH_SIZE = 256  # examples in a call of the graph
MAX_PIXELS = 2**21  # values of images whose features are counted: 16 MB in float64
MAX_WINDOWS = 32  # of a text, whose answers are thousands of numbers for each token


def profile_splits(draft: ManifestDraft, splits: Splits, graph: Path) -> FeatureProfile:
    """Build the profile that the draft's policy allows, with predictions of the served graph."""
    session, train = open_session(str(graph)), splits.train.inputs
    limit = max(1, MAX_PIXELS // prod(train.shape[1:])) if isinstance(train, Pixels) else EXAMPLES
    feeds = {draft.inputs[0].name: train[sample_row_indices(len(train), min(limit, EXAMPLES))]}
    count = len(splits.validation.inputs) + len(splits.test.inputs)
    rows = sample_row_indices(count, MAX_WINDOWS if splits.test.text else ANSWERED)
    return build_profile(draft, feeds, {draft.outputs[0].name: predict_held_rows(session, splits, rows)})


def predict_held_rows(session: Session, splits: Splits, rows: Array) -> Array:
    """Run the graph on rows of the validation set and, after it, the test set; on images some at a time."""
    validation, test = splits.validation.inputs, splits.test.inputs
    inside, beyond = rows[rows < len(validation)], rows[rows >= len(validation)] - len(validation)
    if isinstance(validation, Pixels) and isinstance(test, Pixels):
        parts = [part.select(some) for part, some in ((validation, inside), (test, beyond)) if len(some)]
        return np.concatenate([run_graph(session, part) for part in parts])
    return predict_in_batches(session, np.concatenate([validation[inside], test[beyond]]))


def check_capture_options(options: CaptureOptions | None, train: Dataset) -> None:
    """Refuse a mask of fields that the data do not have before anything is trained; `InvalidInputError`."""
    if options is None:
        return
    columns = train.features if train.inputs.ndim == 2 and not train.text else ()
    finish = ClassificationPostprocessing(output="logits")
    try:
        options.policy.check_fields({*columns, *get_tensor_names(train), "table", *finish.output_names})
    except ValueError as exc:
        raise InvalidInputError(f"capture {exc}.") from exc


def predict_in_batches(session: Session, inputs: Array) -> Array:
    """Run the graph on the inputs in batches."""
    return np.concatenate(
        [run_graph(session, inputs[start : start + BATCH_SIZE]) for start in range(0, len(inputs), BATCH_SIZE)]
    )
