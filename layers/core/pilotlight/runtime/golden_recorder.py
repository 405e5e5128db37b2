"""Record golden requests of any graph: given ones, or ones generated from its signature, with the graph's answers.

Publishers record them; `runtime.golden` replays them. This module needs no test set and depends on no task.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from msgspec import Struct

from pilotlight.contracts.manifest import Precision, TensorSpec
from pilotlight.errors import DeadlineError, InvalidInputError, ModelRefusedError
from pilotlight.runtime import golden, request_search
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.golden import GoldenDocument, GoldenExchange, GoldenRequest, GoldenResponse, GoldenTensor
from pilotlight.runtime.request_search import PATTERN_SIZE, Plan
from pilotlight.runtime.session import Session, open_session

Feeds = request_search.Feeds
DEADLINE_RUNNER = request_search.DEADLINE_RUNNER
# Shares of the largest recorded |value|. fp32 sums in another order on another CPU; int8 may round an activation by one
# step (0.2 % measured between fused and unfused kernels); a wrong file differs by far more.
TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-4, "int8": 1e-2, "int4": 1e-2}
MAX_VALUES = 1_000_000  # of a request and its answer as written; more would make the document larger than many models
ROUNDING = 1e-3  # of the tolerance: what recorded answers may be rounded by, so that they take fewer digits
MAX_RUN_SECONDS = 20.0  # for a generated request, which may send a graph into a loop


class GoldenRecording(Struct, frozen=True, kw_only=True):
    """Golden requests, if some could be recorded, and what they leave unchecked: clauses by output."""

    document: GoldenDocument | None = None
    unchecked: dict[str, str] = {}  # outputs that are not recorded, and why
    reason: str = ""  # why there is no document: a clause


def record_golden_requests(graph: Path, variant: Precision, feeds: Sequence[Feeds]) -> GoldenDocument | None:
    """Run the graph and record its answers; None if no request can be recorded or the answers do not repeat."""
    return record_requests(graph, variant, feeds).document


def record_requests(
    graph: Path, variant: Precision, feeds: Sequence[Feeds], session: Session | None = None
) -> GoldenRecording:
    """Run the graph and record the outputs that are finite and repeat, in this session and a new one.

    Answers with NaN are not recorded, since nothing can be compared with them. `session` is one of the graph that is
    open already.
    """
    if not feeds:
        return GoldenRecording(reason="it answers no made-up request")
    session = session or open_session(str(graph))
    answers = [(feed, session.run(feed)) for feed in feeds]
    unchecked = find_unrecordable(answers)
    # A graph's random numbers may be the same in each new session.
    for again in (session, open_session(str(graph))):
        unchecked |= find_unrepeated(again, answers)
    recorded = [spec for spec in session.outputs if spec.name not in unchecked]
    if not recorded:
        return GoldenRecording(unchecked=unchecked, reason="; ".join(sorted(set(unchecked.values()))))
    usable = [(feed, answer) for feed, answer in answers if is_recordable(feed) and fits(feed, answer, recorded)]
    if not usable:
        return GoldenRecording(reason=f"its requests and answers have more than {MAX_VALUES:,} values")
    sizes = [
        float(np.abs(values).max(initial=0.0))
        for _, answer in usable
        for values in select_numeric_arrays({spec.name: answer[spec.name] for spec in recorded})
    ]
    tolerance = TOLERANCES[variant] * max(max(sizes, default=0.0), float(np.finfo(np.float32).eps))
    exchanges = tuple(build_exchange(session, feed, answer, recorded, tolerance) for feed, answer in usable)
    version: Literal[1, 2] = 2 if any(tensor.is_pattern for one in exchanges for tensor in one.request.inputs) else 1
    document = GoldenDocument(schema_version=version, variant=variant, tolerance=tolerance, exchanges=exchanges)
    return check_replay(GoldenRecording(document=document, unchecked=unchecked), document, session)


def check_replay(recording: GoldenRecording, document: GoldenDocument, session: Session) -> GoldenRecording:
    """Return the recording if the written document is answered as recorded."""
    try:
        golden.replay_exchanges(document, session)
    except ModelRefusedError as exc:
        return GoldenRecording(unchecked=recording.unchecked, reason=f"it does not repeat its answers ({exc})")
    return recording


def find_unrecordable(answers: Sequence[tuple[Feeds, Mapping[str, Array]]]) -> dict[str, str]:
    """Find the outputs that JSON cannot hold in some answer, and say why."""
    found = {}
    for _, answer in answers:
        for name, values in answer.items():
            if not is_recordable({name: values}):
                found[name] = f"{name!r} has NaN or infinities"
    return found


def find_unrepeated(session: Session, answers: Sequence[tuple[Feeds, Mapping[str, Array]]]) -> dict[str, str]:
    """Find the outputs that differ from run to run."""
    found = {}
    for feed, before in answers:
        for name, values in session.run(feed).items():
            if not is_same(before[name], values):
                found[name] = f"{name!r} is not the same twice: it is drawn by chance"
    return found


def is_same(before: Array, now: Array) -> bool:
    """Return whether two answers are equal but for rounding; NaN equals NaN."""
    if before.shape != now.shape:
        return False
    if before.dtype.kind != "f":
        return bool(np.array_equal(before, now))
    one, other = before.astype(np.float64), now.astype(np.float64)
    allowed = 1e-4 * float(np.abs(one[np.isfinite(one)]).max(initial=1e-9))
    return np.allclose(one, other, rtol=0, atol=allowed, equal_nan=True)


def fits(feed: Feeds, answer: Mapping[str, Array], recorded: Sequence[TensorSpec]) -> bool:
    """Return whether a request and its recorded outputs are few enough values as they are written."""
    written = sum(len(shorten_values(values)) for values in feed.values())
    return written + sum(answer[spec.name].size for spec in recorded) <= MAX_VALUES


def is_recordable(arrays: Mapping[str, Array]) -> bool:
    """Return whether JSON can hold the arrays: finite numbers and texts."""
    finite = all(np.isfinite(values).all() for values in select_numeric_arrays(arrays))
    return finite and all(
        isinstance(value, str) for values in arrays.values() if values.dtype == object for value in values.flat
    )


def select_numeric_arrays(arrays: Mapping[str, Array]) -> list[Array]:
    """Select the numeric arrays, as float64."""
    return [values.astype(np.float64) for values in arrays.values() if values.dtype != object]


def build_exchange(
    session: Session,
    feed: Feeds,
    answer: Mapping[str, Array],
    outputs: Sequence[TensorSpec] | None = None,
    tolerance: float = 0.0,
) -> GoldenExchange:
    """Build the exchange of a request and its answer, or of some of its outputs, rounded by less than `tolerance`."""
    chosen = session.outputs if outputs is None else outputs
    return GoldenExchange(
        GoldenRequest(tuple(to_golden_tensor(spec, feed[spec.name]) for spec in session.inputs)),
        GoldenResponse(tuple(to_golden_tensor(spec, answer[spec.name], ROUNDING * tolerance) for spec in chosen)),
    )


def to_golden_tensor(spec: TensorSpec, values: Array, precision: float = 0.0) -> GoldenTensor:
    """Convert an array to a tensor of the JSON; floats are rounded to `precision`, and a pattern is written once."""
    written = shorten_values(values)
    if precision and values.dtype.kind == "f":
        written = np.round(written.astype(np.float64), max(0, int(np.ceil(-np.log10(precision)))))
    return GoldenTensor(spec.name, values.shape, spec.datatype, tuple(written.tolist()))


def shorten_values(values: Array) -> Array:
    """Return the values flat, or what they are a repetition of."""
    flat = values.ravel()
    pattern = flat[:PATTERN_SIZE]
    return pattern if flat.size > PATTERN_SIZE and np.array_equal(np.resize(pattern, flat.size), flat) else flat


def generate_feeds(session: Session, seed: int = 0) -> tuple[Feeds, ...]:
    """Generate two requests that the graph answers, from the signature; fewer if it answers none."""
    return tuple(request_search.search_requests(session, seed).feeds)


def generate_candidates(session: Session, seed: int = 0) -> tuple[Feeds, ...]:
    """Generate two requests from the signature, which the graph may refuse."""
    plan = next(request_search.plan_requests(session.inputs, seed))
    return tuple(request_search.build_feeds(session.inputs, plan, size, seed) for size in (1, 2))


def generate_input(spec: TensorSpec, batch_size: int, random: np.random.Generator) -> Array:
    """Generate an input: normal numbers, or zeros and ones, which are valid as indices and as mask bits."""
    sizes = {(spec.name, axis): request_search.FREE_DIMENSION_SIZE for axis in range(1, len(spec.shape))}
    plan = Plan(sizes)
    shape = request_search.choose_shape(spec, plan, batch_size)
    return request_search.build_values(spec, shape, plan, 1, random)


def can_run(session: Session, feed: Feeds) -> bool:
    """Return whether the graph answers a request within `MAX_RUN_SECONDS`."""
    try:
        DEADLINE_RUNNER.run(session, feed, [spec.name for spec in session.outputs], time.monotonic() + MAX_RUN_SECONDS)
    except (InvalidInputError, DeadlineError):
        return False
    return True
