"""Golden requests of any graph: given ones, or some that are made up within its signature, with the answers it gives.

Whoever publishes records them; `runtime.golden` replays them. It needs no test set, and knows no task.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pilotlight.contracts.manifest import Precision, TensorSpec
from pilotlight.errors import DeadlineError, InvalidInputError, ModelRefusedError
from pilotlight.runtime import golden
from pilotlight.runtime.datatypes import NUMPY_DTYPES
from pilotlight.runtime.golden import Exchange, Golden, Request, Response, Tensor
from pilotlight.runtime.inference_deadline import Watch
from pilotlight.runtime.session import Array, Session, open_session

Feeds = Mapping[str, Array]  # a graph's inputs by name
# Of the largest recorded |value|. fp32 sums in another order on another CPU; int8 may round one step of an activation
# the other way (0.2 % measured between fused and unfused kernels), and a wrong file is wrong by far more.
TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-4, "int8": 1e-2, "int4": 1e-2}
VALUES = 1_000_000  # of a request and its answer: beyond, the document would be larger than many a model
FREE = 8  # what a free dimension other than the batch is made up as
LONGEST_S = 20.0  # for a made-up request, which may send a graph into a loop
WATCH = Watch()


def record(graph: Path, variant: Precision, feeds: Sequence[Feeds]) -> Golden | None:
    """Ask the graph, and ask it anew to see that it repeats itself; None when there is nothing to ask.

    A graph that answers with NaN, or otherwise each time, gets none, for nothing could be compared with it.
    """
    session = open_session(str(graph))
    asked = [(feed, session.run(feed)) for feed in feeds]
    usable = [(feed, answer) for feed, answer in asked if recordable(feed) and recordable(answer)]
    if not usable:
        return None
    sizes = (float(np.abs(values).max(initial=0.0)) for _, answer in usable for values in numbers(answer))
    largest = max(sizes, default=0.0)
    exchanges = tuple(exchange(session, feed, answer) for feed, answer in usable)
    tolerance = TOLERANCES[variant] * max(largest, float(np.finfo(np.float32).eps))
    found = Golden(variant=variant, tolerance=tolerance, exchanges=exchanges)
    try:
        for again in (session, open_session(str(graph))):  # what is drawn by chance may be drawn alike in each session
            golden.replay(found, again)
    except ModelRefusedError:
        return None
    return found


def recordable(arrays: Mapping[str, Array]) -> bool:
    """Whether JSON can hold the arrays: numbers that are finite, texts, and not too many."""
    finite = all(np.isfinite(values).all() for values in numbers(arrays))
    texts = all(isinstance(value, str) for values in arrays.values() if values.dtype == object for value in values.flat)
    return finite and texts and sum(values.size for values in arrays.values()) <= VALUES


def numbers(arrays: Mapping[str, Array]) -> list[Array]:
    """The arrays of numbers, in float64."""
    return [values.astype(np.float64) for values in arrays.values() if values.dtype != object]


def exchange(session: Session, feed: Feeds, answer: Mapping[str, Array]) -> Exchange:
    """A recorded request and its answer."""
    return Exchange(Request(tensors(session.inputs, feed)), Response(tensors(session.outputs, answer)))


def tensors(specs: Sequence[TensorSpec], arrays: Mapping[str, Array]) -> tuple[Tensor, ...]:
    """Arrays as they stand in JSON."""
    return tuple(
        Tensor(spec.name, arrays[spec.name].shape, spec.datatype, tuple(arrays[spec.name].ravel().tolist()))
        for spec in specs
    )


def made_up(session: Session, seed: int = 0) -> tuple[Feeds, ...]:
    """Two requests within the signature, or none where a text would have to be made up or the graph refuses them."""
    if any(spec.datatype == "BYTES" for spec in session.inputs):
        return ()
    random = np.random.default_rng(seed)
    feeds = tuple({spec.name: drawn(spec, size, random) for spec in session.inputs} for size in (1, 2))
    return tuple(feed for feed in feeds if answered(session, feed))


def drawn(spec: TensorSpec, size: int, random: np.random.Generator) -> Array:
    """An input: normal numbers, or zeros and ones, which are indices of any table and bits of any mask."""
    sizes = {name: FREE for name in spec.shape if isinstance(name, str)}
    if spec.shape and isinstance(spec.shape[0], str):
        sizes[spec.shape[0]] = size
    shape = [sizes[one] if isinstance(one, str) else one for one in spec.shape]
    dtype = NUMPY_DTYPES[spec.datatype]
    values = random.standard_normal(shape) if dtype.kind == "f" else random.integers(0, 2, shape)
    return np.asarray(values, dtype)


def answered(session: Session, feed: Feeds) -> bool:
    """Whether the graph answers a request, and soon."""
    try:
        WATCH.run(session, feed, [spec.name for spec in session.outputs], time.monotonic() + LONGEST_S)
    except (InvalidInputError, DeadlineError):
        return False
    return True
