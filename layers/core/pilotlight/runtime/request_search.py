"""Search for requests that a graph answers, from its signature alone: for golden requests where nobody brings examples.

Free dimensions get usual sizes: images of 32 to 1024 pixels, sounds of 16,000 samples, sequences of 8 to 512 steps.
First all free sizes are equal, then each axis has its own, drawn by chance from a fixed seed; a size that a graph
refuses costs a millisecond. Whole numbers are indices of any table, masks are ones, lengths are another input's size.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from pilotlight.contracts.manifest import TensorSpec
from pilotlight.errors import DeadlineError, InvalidInputError
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.session import Session

Feeds = Mapping[str, Array]  # a graph's inputs by name
FREE_DIMENSION_SIZE = 8  # the first that is tried, for free dimensions other than the batch
EQUAL_SIZES = (32, 64, 224, 16, 128, 256, 4, 1, 2, 48, 96, 320, 512, 640, 80, 112, 384, 16_000)
SIZES_BY_RANK: Mapping[int, tuple[int, ...]] = {  # of a free axis behind the batch
    1: (1, 2, 8, 16, 512, 16_000, 1024, 80),
    2: (8, 16, 32, 64, 128, 256, 512, 1024, 16_000, 8000, 1, 2, 3, 4, 10, 13, 40, 80, 100, 768, 24_000, 48_000),
    3: (8, 16, 32, 64, 80, 100, 128, 256, 512, 1, 2, 3, 4, 10, 13, 39, 40, 60, 200, 300, 768, 1000, 3000),
    4: (32, 64, 224, 8, 16, 1, 3, 4, 12, 48, 80, 96, 112, 128, 160, 192, 256, 320, 384, 416, 448, 480, 512, 640, 1024),
    5: (8, 16, 1, 3, 4, 32, 64, 112, 224),
}  # fmt: skip
CHANNELS = (3, 1, 4)  # of an image whose channels are free
CHANNEL_AXES = (1, 3)  # first or last, behind the batch
SCALARS = (1, 16_000, 8000, 0, 8, 2, 512, 640)  # of inputs without dimensions, such as a sample rate
TEXTS = ("a text", "another one", "1", "2.5")
RATES = (16_000, 8000)  # Hz, of an input that is named as a sample rate
RATE_WORDS = frozenset({"sr", "fs", "rate", "samplerate"})
MASK_WORDS, LENGTH_WORDS = ("mask", "valid"), ("len", "num_", "size", "count")
PATTERN_SIZE = 997  # values after which a large input repeats itself, so that it can be written in short
MAX_VALUES = 4_000_000  # of one request; larger ones would take the search's time
SEARCH_SECONDS = 8.0  # s for all tries together
MAX_TRIES = 1500
DEADLINE_RUNNER = DeadlineRunner()


@dataclass(frozen=True)
class Plan:
    """How free dimensions and values are chosen in one try."""

    sizes: Mapping[tuple[str, int], int]  # by input and axis
    scalar: int = 1
    limit: int = 2  # whole numbers lie below it
    positive: bool = False  # numbers lie above 0
    ones: bool = False  # inputs of fewer than two dimensions hold ones: factors, steps, shapes


@dataclass
class SearchResult:
    """The requests that were answered, and what was said of those that were not."""

    feeds: list[Feeds] = field(default_factory=list)
    tries: int = 0
    refusal: str = ""  # the graph's last


def search_requests(
    session: Session, seed: int = 0, seconds: float = SEARCH_SECONDS, *, only_finite: bool = True
) -> SearchResult:
    """Search until one request is answered with finite numbers, and try the same with two rows.

    A request whose answers are not finite is kept if there is no better one, or if `only_finite` is not set.
    """
    deadline, result, fallback = time.monotonic() + seconds, SearchResult(), list[Feeds]()
    for plan in plan_requests(session.inputs, seed):
        if result.tries >= MAX_TRIES or (result.tries and time.monotonic() >= deadline):
            break
        if count_values(session.inputs, plan) > MAX_VALUES:
            continue
        for tried in (plan, replace(plan, positive=True)):  # a logarithm or a root takes no negative number
            feeds = build_feeds(session.inputs, tried, 1, seed)
            result.tries += 1
            answers = try_request(session, feeds, result)
            if answers is None:
                break
            if not only_finite or all(is_finite(values) for values in answers.values()):
                result.feeds = [feeds, *try_two_rows(session, tried, seed, result)]
                return result
            fallback = fallback or [feeds]
    result.feeds = fallback
    return result


def count_values(inputs: Sequence[TensorSpec], plan: Plan) -> int:
    """Count the values of a request by a plan."""
    return sum(prod(choose_shape(spec, plan, 1)) for spec in inputs)


def try_two_rows(session: Session, plan: Plan, seed: int, result: SearchResult) -> list[Feeds]:
    """Return a request like the plan's of two rows, if the first dimension is free and the graph answers it.

    States that pass from step to step have the batch elsewhere: there a size of 1 becomes 2.
    """
    if not any(spec.shape and isinstance(spec.shape[0], str) for spec in session.inputs):
        return []
    doubled = replace(plan, sizes={place: 2 if size == 1 else size for place, size in plan.sizes.items()})
    for tried in (plan, doubled) if doubled != plan else (plan,):
        feeds = build_feeds(session.inputs, tried, 2, seed + 1)
        if try_request(session, feeds, result) is not None:
            return [feeds]
    return []


def try_request(session: Session, feeds: Feeds, result: SearchResult) -> Mapping[str, Array] | None:
    """Run a request for a few seconds at most; None, with the refusal noted, if it is not answered."""
    names = [spec.name for spec in session.outputs]
    try:
        return DEADLINE_RUNNER.run(session, feeds, names, time.monotonic() + SEARCH_SECONDS)
    except (InvalidInputError, DeadlineError) as exc:
        result.refusal = str(exc)
        return None


def is_finite(values: Array) -> bool:
    """Return whether an output has no NaN and no infinity; texts have none."""
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())


def plan_requests(inputs: Sequence[TensorSpec], seed: int) -> Iterator[Plan]:
    """Plan the tries, each first with dimensions that are named as sums, as of a decoder's mask, of that size."""
    has_sums = any(isinstance(size, str) and "+" in size for spec in inputs for size in spec.shape)
    for plan in plan_sizes(inputs, seed):
        if has_sums:
            yield add_up_sums(inputs, plan)
        yield plan


def add_up_sums(inputs: Sequence[TensorSpec], plan: Plan) -> Plan:
    """Return the plan with `past + 1` and the like computed from the sizes of its terms; unknown terms are 1."""
    shapes = {spec.name: spec.shape for spec in inputs}
    named = {shapes[name][axis]: size for (name, axis), size in plan.sizes.items()}
    sums = {
        (name, axis): sum(int(term) if term.strip().isdecimal() else named.get(term.strip(), 1) for term in terms)
        for name, shape in shapes.items()
        for axis, size in enumerate(shape)
        if axis > 0 and isinstance(size, str) and len(terms := size.split("+")) > 1
    }
    return replace(plan, sizes={**plan.sizes, **sums})


def plan_sizes(inputs: Sequence[TensorSpec], seed: int) -> Iterator[Plan]:
    """Plan the sizes: one small size, images with their channels, equal sizes, then sizes by chance.

    An axis that has the name of a first one, as of a state `[2, batch, 128]`, is of its size, if the graph takes that.
    """
    free = [
        (spec, axis) for spec in inputs for axis, size in enumerate(spec.shape) if isinstance(size, str) and axis > 0
    ]
    firsts = list_first_names(inputs)
    apart = [(spec, axis) for spec, axis in free if spec.shape[axis] not in firsts]
    for some in (apart, free) if len(apart) < len(free) else (free,):
        yield Plan({(spec.name, axis): FREE_DIMENSION_SIZE for spec, axis in some})
        yield from plan_images(some)
        yield from plan_equal_sizes(some)
    yield from plan_by_chance(inputs, free, seed)


def list_first_names(inputs: Sequence[TensorSpec]) -> set[str]:
    """List the names of the inputs' first dimensions, such as the batch."""
    return {spec.shape[0] for spec in inputs if spec.shape and isinstance(spec.shape[0], str)}


def plan_equal_sizes(free: Sequence[tuple[TensorSpec, int]]) -> Iterator[Plan]:
    """Plan tries in which all free sizes are equal, and some with other values: larger ones, and none of 0."""
    for size in EQUAL_SIZES if free else ():
        yield Plan({(spec.name, axis): size for spec, axis in free})
    for scalar in SCALARS:
        yield Plan({(spec.name, axis): FREE_DIMENSION_SIZE for spec, axis in free}, scalar, limit=4)
    for ones in (True, False):  # divisors, and what multiplies sizes
        sizes = {(spec.name, axis): FREE_DIMENSION_SIZE for spec, axis in free}
        yield Plan(sizes, limit=4, positive=True, ones=ones)


def plan_images(free: Sequence[tuple[TensorSpec, int]]) -> Iterator[Plan]:
    """Plan tries for inputs of four dimensions whose channels are free as well, first or last."""
    if not any(len(spec.shape) == 4 and axis in CHANNEL_AXES for spec, axis in free):
        return
    for size in SIZES_BY_RANK[4]:
        for channels in CHANNELS:
            for place in CHANNEL_AXES:
                yield Plan({
                    (spec.name, axis): channels if len(spec.shape) == 4 and axis == place else size
                    for spec, axis in free
                })  # fmt: skip


def plan_by_chance(inputs: Sequence[TensorSpec], free: Sequence[tuple[TensorSpec, int]], seed: int) -> Iterator[Plan]:
    """Plan tries in which each free axis has a size of its own; axes of one name share it in every second try."""
    random, firsts = np.random.default_rng(seed), list_first_names(inputs)
    loose = any(not spec.shape or spec.datatype.startswith(("INT", "UINT")) for spec in inputs)
    for number in range(MAX_TRIES if free or loose else 0):
        sizes: dict[tuple[str, int], int] = {}
        shared: dict[str, int] = {}
        for spec, axis in free:
            if number % 2 == 0 and spec.shape[axis] in firsts:
                continue
            usual = SIZES_BY_RANK.get(len(spec.shape), SIZES_BY_RANK[5])
            drawn = int(usual[int(random.integers(len(usual)))])
            sizes[spec.name, axis] = shared.setdefault(str(spec.shape[axis]), drawn) if number % 2 == 0 else drawn
        scalar = int(SCALARS[int(random.integers(len(SCALARS)))])
        yield Plan(sizes, scalar, limit=int(random.integers(1, 9)), positive=bool(random.integers(2)))


def build_feeds(inputs: Sequence[TensorSpec], plan: Plan, batch_size: int, seed: int) -> dict[str, Array]:
    """Build a request by a plan; the first free dimension of each input is the batch."""
    random = np.random.default_rng(seed)
    shapes = {spec.name: choose_shape(spec, plan, batch_size) for spec in inputs}
    longest = max((max(shape[1:], default=1) for shape in shapes.values() if len(shape) > 1), default=1)
    return {spec.name: build_values(spec, shapes[spec.name], plan, longest, random) for spec in inputs}


def choose_shape(spec: TensorSpec, plan: Plan, batch_size: int) -> tuple[int, ...]:
    """Choose the shape of an input: free dimensions that the plan leaves out are as large as the batch."""
    return tuple(
        size if isinstance(size, int) else plan.sizes.get((spec.name, axis), batch_size)
        for axis, size in enumerate(spec.shape)
    )


def build_values(
    spec: TensorSpec, shape: tuple[int, ...], plan: Plan, longest: int, random: np.random.Generator
) -> Array:
    """Build an input's values by its datatype, its name and its number of dimensions."""
    dtype, count, name = NUMPY_DTYPES[spec.datatype], prod(shape), spec.name.lower()
    if spec.datatype == "BYTES":
        return np.resize(np.array(TEXTS, object), shape)
    if any(word in name for word in MASK_WORDS) or (plan.ones and len(shape) < 2):
        return fill(1, spec, shape)
    if spec.datatype != "BOOL" and dtype.kind in "iu" and spec.datatype != "BF16":
        if any(word in name for word in LENGTH_WORDS) and len(shape) < 2:
            return fill(longest if plan.scalar == 1 else plan.scalar, spec, shape)
        if len(shape) < 2 and RATE_WORDS & set(re.split(r"[^a-z]+", name)):
            return fill(plan.scalar if plan.scalar in RATES else RATES[0], spec, shape)
        if not shape:
            return fill(plan.scalar, spec, shape)
    values = draw_values(spec, min(count, PATTERN_SIZE), plan, image=len(shape) == 4, random=random)
    return np.resize(values, shape) if count else np.zeros(shape, dtype)


def fill(value: int, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """Fill an input with one value, as far as its datatype holds it."""
    if spec.datatype == "BF16":
        return np.full(shape, np.float32(value).view(np.uint32) >> 16, np.uint16)
    dtype = NUMPY_DTYPES[spec.datatype]
    largest = np.iinfo(dtype).max if dtype.kind in "iu" else value
    return np.full(shape, min(value, int(largest)), dtype)


def draw_values(spec: TensorSpec, count: int, plan: Plan, *, image: bool, random: np.random.Generator) -> Array:
    """Draw values: pixels, indices, bits, or normal numbers that take few digits in JSON and are never 0."""
    dtype = NUMPY_DTYPES[spec.datatype]
    if spec.datatype == "UINT8" and image:
        return random.integers(0, 256, count).astype(dtype)
    if dtype.kind != "f" and spec.datatype != "BF16":
        lowest = int(plan.positive and plan.limit > 1)
        return random.integers(lowest, plan.limit, count).astype(dtype)
    values = (np.floor(random.standard_normal(count) * 32) * 2 + 1) / 64
    values = np.abs(values) if plan.positive else values
    if spec.datatype == "BF16":
        return np.asarray(values.astype(np.float32).view(np.uint32) >> 16, np.uint16)
    return np.asarray(values, dtype)
