"""Golden requests: V2 infer requests with the answers that the served variant gave when it was exported.

Whoever loads the version later, the gate, a warm function or a deploy, replays them and compares.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from msgspec import Struct

from functions.train.data import Array, Dataset
from functions.train.errors import GoldenError
from functions.train.graph import ask
from pilotlight.contracts import Precision, decode
from pilotlight.runtime.session import Session, open_session

# Of the largest recorded |logit|. fp32 sums in another order on another CPU; int8 may round one step of an activation
# the other way (0.2 % measured between fused and unfused kernels), and a wrong file is wrong by far more.
TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-4, "int8": 1e-2, "int4": 1e-2}
BATCH = 3  # examples in the one request that brings several
PROMPTS = ((1, 1), (1, 4), (3, 2))  # batch and length of those to a language model: each token is answered by thousands
DATATYPES: Mapping[str, str] = {"FP32": "float32", "INT64": "int64"}


class Tensor(Struct, frozen=True):
    """A tensor as in the V2 protocol's JSON: its values flat, row by row."""

    name: str
    shape: tuple[int, ...]
    datatype: Literal["FP32", "INT64"]
    data: tuple[int | float, ...]


class Request(Struct, frozen=True):
    """The body of a V2 infer request."""

    inputs: tuple[Tensor, ...]


class Response(Struct, frozen=True):
    """What matters of the body of its answer."""

    outputs: tuple[Tensor, ...]


class Exchange(Struct, frozen=True):
    """A golden request and its answer."""

    request: Request
    response: Response


class Golden(Struct, frozen=True, kw_only=True):
    """`golden.json`: |expected - actual| must stay within the tolerance, for every output value of every exchange."""

    schema_version: Literal[1] = 1
    variant: Precision
    tolerance: float
    exchanges: tuple[Exchange, ...]


def record(graph: Path, variant: Precision, test: Dataset) -> Golden:
    """Ask the served graph about one test example of each class, each alone, and about three of them at once.

    Where answers are numbers, three examples stand for the classes; of a text, the beginnings of windows.
    """
    session = open_session(str(graph))
    feeds = prompts(test.inputs) if test.text else requests(session, test)
    answers = [ask(session, feed) for feed in feeds]
    tolerance = TOLERANCES[variant] * max(float(np.abs(answer).max()) for answer in answers)
    recorded = [exchange(session, feed, answer) for feed, answer in zip(feeds, answers, strict=True)]
    return Golden(variant=variant, tolerance=tolerance, exchanges=tuple(recorded))


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


def exchange(session: Session, inputs: Array, outputs: Array) -> Exchange:
    """A recorded request and its answer."""
    (given,), (answer,) = session.inputs, session.outputs
    return Exchange(Request((tensor(given.name, inputs),)), Response((tensor(answer.name, outputs),)))


def tensor(name: str, values: Array) -> Tensor:
    """An array as it stands in JSON."""
    datatype: Literal["FP32", "INT64"] = "INT64" if values.dtype == np.int64 else "FP32"
    return Tensor(name, values.shape, datatype, tuple(values.ravel().tolist()))


def array(tensor: Tensor) -> Array:
    """A tensor of the JSON as an array."""
    return np.array(tensor.data, DATATYPES[tensor.datatype]).reshape(tensor.shape)


def replay(document: bytes, graph: Path) -> None:
    """Put the recorded requests to a freshly opened graph; `GoldenError` when an answer is not the recorded one."""
    golden = decode(document, Golden, "golden.json")
    session = open_session(str(graph))
    for number, recorded in enumerate(golden.exchanges, 1):
        feeds = {given.name: array(given) for given in recorded.request.inputs}
        answers = session.run(feeds)
        for expected in recorded.response.outputs:
            compare(number, array(expected), answers[expected.name], golden.tolerance)


def compare(number: int, expected: Array, actual: Array, tolerance: float) -> None:
    """Refuse an answer that is too far from the recorded one, or not a number."""
    difference = float(np.abs(expected - actual).max())
    if not difference <= tolerance:
        raise GoldenError(
            f"Golden request {number} is answered {difference:.3g} away from what was recorded, tolerance "
            f"{tolerance:.3g}: nothing is published."
        )
