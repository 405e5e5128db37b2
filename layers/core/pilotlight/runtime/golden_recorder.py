"""Record golden requests of any graph: given ones, or ones generated from its signature, with the graph's answers.

Publishers record them; `runtime.golden` replays them. This module needs no test set and depends on no task.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pilotlight.contracts.manifest import Precision, TensorSpec
from pilotlight.errors import DeadlineError, InvalidInputError, ModelRefusedError
from pilotlight.runtime import golden
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array
from pilotlight.runtime.golden import GoldenDocument, GoldenExchange, GoldenRequest, GoldenResponse, GoldenTensor
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.session import Session, open_session

Feeds = Mapping[str, Array]  # a graph's inputs by name
# Shares of the largest recorded |value|. fp32 sums in another order on another CPU; int8 may round an activation by one
# step (0.2 % measured between fused and unfused kernels); a wrong file differs by far more.
TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-4, "int8": 1e-2, "int4": 1e-2}
MAX_VALUES = 1_000_000  # of a request and its answer; more would make the document larger than many models
FREE_DIMENSION_SIZE = 8  # of a generated input, for free dimensions other than the batch
MAX_RUN_SECONDS = 20.0  # for a generated request, which may send a graph into a loop
DEADLINE_RUNNER = DeadlineRunner()


def record_golden_requests(graph: Path, variant: Precision, feeds: Sequence[Feeds]) -> GoldenDocument | None:
    """Run the graph and record its answers; None if no request can be recorded or the answers do not repeat.

    Answers with NaN are not recorded, since nothing can be compared with them.
    """
    session = open_session(str(graph))
    answers = [(feed, session.run(feed)) for feed in feeds]
    usable = [(feed, answer) for feed, answer in answers if is_recordable(feed) and is_recordable(answer)]
    if not usable:
        return None
    sizes = (float(np.abs(values).max(initial=0.0)) for _, answer in usable for values in select_numeric_arrays(answer))
    largest = max(sizes, default=0.0)
    exchanges = tuple(build_exchange(session, feed, answer) for feed, answer in usable)
    tolerance = TOLERANCES[variant] * max(largest, float(np.finfo(np.float32).eps))
    document = GoldenDocument(variant=variant, tolerance=tolerance, exchanges=exchanges)
    try:
        for replay_session in (
            session,
            open_session(str(graph)),
        ):  # a graph's random numbers may be the same in each new session
            golden.replay_exchanges(document, replay_session)
    except ModelRefusedError:
        return None
    return document


def is_recordable(arrays: Mapping[str, Array]) -> bool:
    """Return whether JSON can hold the arrays: finite numbers and texts, and not too many."""
    finite = all(np.isfinite(values).all() for values in select_numeric_arrays(arrays))
    texts = all(isinstance(value, str) for values in arrays.values() if values.dtype == object for value in values.flat)
    return finite and texts and sum(values.size for values in arrays.values()) <= MAX_VALUES


def select_numeric_arrays(arrays: Mapping[str, Array]) -> list[Array]:
    """Select the numeric arrays, as float64."""
    return [values.astype(np.float64) for values in arrays.values() if values.dtype != object]


def build_exchange(session: Session, feed: Feeds, answer: Mapping[str, Array]) -> GoldenExchange:
    """Build the exchange of a request and its answer."""
    return GoldenExchange(
        GoldenRequest(to_golden_tensors(session.inputs, feed)),
        GoldenResponse(to_golden_tensors(session.outputs, answer)),
    )


def to_golden_tensors(specs: Sequence[TensorSpec], arrays: Mapping[str, Array]) -> tuple[GoldenTensor, ...]:
    """Convert arrays to tensors of the JSON."""
    return tuple(
        GoldenTensor(spec.name, arrays[spec.name].shape, spec.datatype, tuple(arrays[spec.name].ravel().tolist()))
        for spec in specs
    )


def generate_feeds(session: Session, seed: int = 0) -> tuple[Feeds, ...]:
    """Generate two requests from the signature, without those the graph refuses; none if an input is text."""
    return tuple(feed for feed in generate_candidates(session, seed) if can_run(session, feed))


def generate_candidates(session: Session, seed: int = 0) -> tuple[Feeds, ...]:
    """Generate two requests from the signature, which the graph may refuse; none if an input is text."""
    if any(spec.datatype == "BYTES" for spec in session.inputs):
        return ()
    random = np.random.default_rng(seed)
    return tuple({spec.name: generate_input(spec, size, random) for spec in session.inputs} for size in (1, 2))


def generate_input(spec: TensorSpec, batch_size: int, random: np.random.Generator) -> Array:
    """Generate an input: normal numbers, or zeros and ones, which are valid as indices and as mask bits."""
    sizes = {name: FREE_DIMENSION_SIZE for name in spec.shape if isinstance(name, str)}
    if spec.shape and isinstance(spec.shape[0], str):
        sizes[spec.shape[0]] = batch_size
    shape = [sizes[one] if isinstance(one, str) else one for one in spec.shape]
    dtype = NUMPY_DTYPES[spec.datatype]
    values = random.standard_normal(shape) if dtype.kind == "f" else random.integers(0, 2, shape)
    return np.asarray(values, dtype)


def can_run(session: Session, feed: Feeds) -> bool:
    """Return whether the graph answers a request within `MAX_RUN_SECONDS`."""
    try:
        DEADLINE_RUNNER.run(session, feed, [spec.name for spec in session.outputs], time.monotonic() + MAX_RUN_SECONDS)
    except (InvalidInputError, DeadlineError):
        return False
    return True
