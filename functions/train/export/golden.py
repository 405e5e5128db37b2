"""Golden requests are recorded here, when the served variant is exported (pilotlight.runtime.golden)."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from functions.train.data.dataset import Array, Dataset
from functions.train.errors import GoldenError
from functions.train.export.graph import ask
from pilotlight.contracts.manifest import Precision, decode
from pilotlight.errors import ModelRefusedError
from pilotlight.runtime import golden
from pilotlight.runtime.golden import Golden
from pilotlight.runtime.golden_recorder import TOLERANCES, exchange
from pilotlight.runtime.session import Session, open_session

BATCH = 3  # examples in the one request that brings several
PROMPTS = ((1, 1), (1, 4), (3, 2))  # batch and length for a language model, whose answers are long


def record(graph: Path, variant: Precision, test: Dataset) -> Golden:
    """Ask the served graph about one test example of each class, each alone, and about three of them at once.

    Where answers are numbers, three examples stand for the classes; of a text, the beginnings of windows.
    """
    session = open_session(str(graph))
    feeds = prompts(test.inputs) if test.text else requests(session, whole(test))
    answers = [ask(session, feed) for feed in feeds]
    tolerance = TOLERANCES[variant] * max(float(np.abs(answer).max()) for answer in answers)
    (given,), (output,) = session.inputs, session.outputs
    recorded = [
        exchange(session, {given.name: feed}, {output.name: answer})
        for feed, answer in zip(feeds, answers, strict=True)
    ]
    return Golden(variant=variant, tolerance=tolerance, exchanges=tuple(recorded))


def whole(test: Dataset) -> Dataset:
    """The examples without missing values, which JSON has no word for; all of them, gaps as 0, when none is whole."""
    kept = np.isfinite(test.inputs).reshape(len(test), -1).all(axis=1)
    return test.take(np.flatnonzero(kept)) if kept.any() else replace(test, inputs=np.nan_to_num(test.inputs))


def prompts(inputs: Array) -> list[Array]:
    """A few short prompts from windows of tokens."""
    return [np.resize(inputs, (batch, inputs.shape[1]))[:, :length] for batch, length in PROMPTS]


def requests(session: Session, test: Dataset) -> list[Array]:
    """The exemplars one by one, and a batch."""
    chosen = exemplars(session, test)
    return [*np.split(test.inputs[chosen], len(chosen)), test.inputs[:BATCH]]


def exemplars(session: Session, test: Dataset) -> Array:
    """The index of the first test example of each class that gets the right answer; the very first if none does."""
    if not test.classes:
        return np.arange(min(BATCH, len(test)))
    right = np.flatnonzero(ask(session, test.inputs).argmax(axis=1) == test.targets)
    return right[np.unique(test.targets[right], return_index=True)[1]] if len(right) else np.array([0])


def replay(document: bytes, graph: Path) -> None:
    """Put the recorded requests to a freshly opened graph; `GoldenError` when an answer is not the recorded one."""
    recorded = decode(document, Golden, "golden.json")
    session = open_session(str(graph))
    try:
        golden.replay(recorded, session)
    except ModelRefusedError as exc:
        raise GoldenError(f"{exc} Nothing is published.") from exc
