"""What captured requests are compared with later: a profile of the training set, and of the answers to the held sets.

Not of the answers to the training set: a model is surer of what it learned from, so every caller would look like drift
(infra/decisions/0039). Of a stream the training set is the sample that calibrates.
"""

from pathlib import Path

import numpy as np

from functions.train.data.dataset import Array, Dataset, Splits
from functions.train.export.graph import ask
from functions.train.export.onnx_export import ends
from pilotlight.contracts.feature_profile import Profile
from pilotlight.contracts.manifest import Draft
from pilotlight.contracts.processing import Classification
from pilotlight.drift.training_profile import ANSWERED, EXAMPLES, profile, some
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.options.capture import CaptureOptions
from pilotlight.runtime.session import Session, open_session

BATCH = 256  # examples asked at once
WINDOWS = 32  # of a text, whose answers are thousands of numbers for each token


def profiled(draft: Draft, splits: Splits, graph: Path) -> Profile:
    """The profile that the draft's policy allows, answers by the graph that is served."""
    session, train = open_session(str(graph)), splits.train.inputs
    feeds = {draft.inputs[0].name: train[some(len(train), EXAMPLES)]}
    held = np.concatenate([splits.validation.inputs, splits.test.inputs])
    chosen = held[some(len(held), WINDOWS if splits.test.text else ANSWERED)]
    return profile(draft, feeds, {draft.outputs[0].name: answers(session, chosen)})


def check(options: CaptureOptions | None, train: Dataset) -> None:
    """Refuse a mask of what the data do not have before anything is trained; `InvalidInputError`."""
    if options is None:
        return
    columns = train.features if train.inputs.ndim == 2 and not train.text else ()
    finish = Classification(output="logits")
    try:
        options.policy.check({*columns, *ends(train), "table", *finish.names})
    except ValueError as exc:
        raise InvalidInputError(f"capture {exc}.") from exc


def answers(session: Session, inputs: Array) -> Array:
    """What the graph answers, some examples at a time."""
    return np.concatenate([ask(session, inputs[start : start + BATCH]) for start in range(0, len(inputs), BATCH)])
