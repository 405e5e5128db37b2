"""Golden requests of a graph with any inputs and outputs, recorded from the variant that is served."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from functions.train.data import Array
from functions.train.golden import TOLERANCES
from functions.train.intake.model import Feeds
from pilotlight.contracts import Precision, TensorSpec
from pilotlight.runtime import golden
from pilotlight.runtime.golden import Exchange, Golden, Request, Response, Tensor
from pilotlight.runtime.session import open_session

INT4 = 1e-3  # fp32 activations, as exact as their order of summing; the same kernels differ more from CPU to CPU
VALUES = 1_000_000  # of a request and its answer: beyond, the document would be larger than many a model


def record(graph: Path, variant: Precision, feeds: Sequence[Feeds]) -> Golden | None:
    """Ask the graph, and ask it anew to see that it repeats itself; None when there is nothing to ask.

    A graph that answers with NaN, or otherwise each time, gets none, for nothing could be compared with it.
    """
    session = open_session(str(graph))
    asked = [(feed, session.run(feed)) for feed in feeds]
    usable = [(feed, answer) for feed, answer in asked if recordable(feed) and recordable(answer)]
    if not usable:
        return None
    largest = max(float(np.abs(values).max(initial=0.0)) for _, answer in usable for values in numbers(answer))
    exchanges = tuple(
        Exchange(Request(tensors(session.inputs, feed)), Response(tensors(session.outputs, answer)))
        for feed, answer in usable
    )
    tolerance = TOLERANCES.get(variant, INT4) * max(largest, float(np.finfo(np.float32).eps))
    found = Golden(variant=variant, tolerance=tolerance, exchanges=exchanges)
    golden.replay(found, open_session(str(graph)))
    return found


def recordable(arrays: Mapping[str, Array]) -> bool:
    """Whether JSON can hold the arrays: numbers that are finite, texts, and not too many."""
    finite = all(np.isfinite(values).all() for values in numbers(arrays))
    return finite and sum(values.size for values in arrays.values()) <= VALUES


def numbers(arrays: Mapping[str, Array]) -> list[Array]:
    """The arrays of numbers, in float64."""
    return [values.astype(np.float64) for values in arrays.values() if values.dtype != object]


def tensors(specs: Sequence[TensorSpec], arrays: Mapping[str, Array]) -> tuple[Tensor, ...]:
    """Arrays as they stand in JSON."""
    return tuple(
        Tensor(spec.name, arrays[spec.name].shape, spec.datatype, tuple(arrays[spec.name].ravel().tolist()))
        for spec in specs
    )
