"""A model under conversion: a graph in fp32, and the facts from its origin."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from functions.train.data import Array
from functions.train.errors import ParityError
from pilotlight.contracts.manifest import ExportParity, Task
from pilotlight.contracts.processing import Postprocessing, Preprocessing
from pilotlight.runtime.golden_recorder import Feeds
from pilotlight.runtime.session import Session, open_session

TOLERANCE = 1e-4  # of the largest |value| of an answer, or of 1 if that is less


@dataclass(frozen=True, kw_only=True)
class ConvertedModel:
    """A graph, and the facts from its origin."""

    graph: Path
    description: str  # a noun phrase, for the card
    feeds: tuple[Feeds, ...] = ()  # requests that the graph can certainly answer
    parity: ExportParity | None = None  # to the framework of its origin
    task: Task = "tensor"
    preprocess: Preprocessing | None = None
    postprocess: Postprocessing | None = None
    labels: tuple[str, ...] = field(default=())


def measure_parity(
    graph: Path, reference: Callable[[Feeds], Mapping[str, Array]], feeds: tuple[Feeds, ...]
) -> ExportParity:
    """Measure the graph's distance from its framework over these requests; `ParityError` beyond the tolerance."""
    session, worst = open_session(str(graph)), 0.0
    for feed in feeds:
        answers = session.run(feed)
        for name, expected in reference(feed).items():
            worst = max(worst, measure_difference(name, expected, answers[name]))
    return ExportParity(worst, tuple(get_batch_size(session, feed) for feed in feeds))


def measure_difference(name: str, expected: Array, actual: Array) -> float:
    """Measure the largest |difference|; `ParityError` beyond the tolerance, for another shape and for NaN."""
    if expected.shape != actual.shape:
        raise ParityError(
            f"The graph answers {name!r} in shape {list(actual.shape)}, the model {list(expected.shape)}."
        )
    if np.isnan(expected).any():
        raise ParityError(f"The model itself answers {name!r} with NaN: nothing is published.")
    difference = float(np.abs(expected.astype(np.float64) - actual.astype(np.float64)).max(initial=0.0))
    allowed = TOLERANCE * max(1.0, float(np.abs(expected).max(initial=0.0)))
    if not difference <= allowed:
        raise ParityError(
            f"The graph's {name!r} is {difference:.3g} away from the model's, more than {allowed:.3g}: nothing is "
            "published."
        )
    return difference


def get_batch_size(session: Session, feed: Feeds) -> int:
    """Return the number of examples in a request; 1 if the graph has no batch."""
    shape = feed[session.inputs[0].name].shape if session.inputs else ()
    return shape[0] if shape else 1
