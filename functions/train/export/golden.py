"""The golden requests of a version, recorded when the served variant is exported (pilotlight.runtime.golden)."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.data.pixels import Pixels
from functions.train.errors import GoldenError
from functions.train.evaluation.graphs import predict_answers
from functions.train.export.quantize import run_graph
from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import Precision
from pilotlight.errors import ModelRefusedError
from pilotlight.runtime import golden
from pilotlight.runtime.golden import GoldenDocument
from pilotlight.runtime.golden_recorder import TOLERANCES, build_exchange
from pilotlight.runtime.session import Session, open_session

BATCH_SIZE = 3  # examples in the one request that brings several
PROMPT_SHAPES = ((1, 1), (1, 4), (3, 2))  # batch and length for a language model, whose answers are long


def record_test_requests(graph: Path, variant: Precision, test: Dataset) -> GoldenDocument:
    """Record the served graph's answers to one test example of each class, each alone, and to three of them at once.

    Where the targets are numbers, three examples take the place of the classes; in a text, the beginnings of windows.
    """
    session = open_session(str(graph))
    feeds = (
        build_prompts(np.asarray(test.inputs))
        if test.text
        else build_test_requests(session, keep_complete_examples(test))
    )
    answers = [run_graph(session, feed) for feed in feeds]
    tolerance = TOLERANCES[variant] * max(float(np.abs(answer).max()) for answer in answers)
    (given,), (output,) = session.inputs, session.outputs
    recorded = [
        build_exchange(session, {given.name: feed}, {output.name: answer})
        for feed, answer in zip(feeds, answers, strict=True)
    ]
    return GoldenDocument(variant=variant, tolerance=tolerance, exchanges=tuple(recorded))


def keep_complete_examples(test: Dataset) -> Dataset:
    """Keep the examples without missing values, which JSON cannot express; all, gaps as 0, if none is complete."""
    if isinstance(test.inputs, Pixels):
        return test  # 8 bits have no gaps
    complete = np.isfinite(test.inputs).reshape(len(test), -1).all(axis=1)
    return test.select(np.flatnonzero(complete)) if complete.any() else replace(test, inputs=np.nan_to_num(test.inputs))


def build_prompts(inputs: Array) -> list[Array]:
    """Build a few short prompts from windows of tokens."""
    return [np.resize(inputs, (batch, inputs.shape[1]))[:, :length] for batch, length in PROMPT_SHAPES]


def build_test_requests(session: Session, test: Dataset) -> list[Array]:
    """Build requests of one exemplar each, and a batch."""
    chosen = pick_exemplars(session, test)
    return [*np.split(test.inputs[chosen], len(chosen)), test.inputs[:BATCH_SIZE]]


def pick_exemplars(session: Session, test: Dataset) -> Array:
    """Pick the index of the first test example of each class that is predicted right; the very first if none is."""
    if not test.classes:
        return np.arange(min(BATCH_SIZE, len(test)))
    right = np.flatnonzero(predict_answers(session, test.inputs)[:, 0] == test.targets)
    return right[np.unique(test.targets[right], return_index=True)[1]] if len(right) else np.array([0])


def verify_recorded_answers(document: bytes, graph: Path) -> None:
    """Send the recorded requests to a freshly opened graph; `GoldenError` when an answer differs."""
    recorded = decode_document(document, GoldenDocument, "golden.json")
    session = open_session(str(graph))
    try:
        golden.replay_exchanges(recorded, session)
    except ModelRefusedError as exc:
        raise GoldenError(f"{exc} Nothing is published.") from exc
