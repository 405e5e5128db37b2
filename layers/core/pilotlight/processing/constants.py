"""Build the graph's further inputs, which have one value in all requests, and the states that begin with zeros."""

from collections.abc import Sequence

import numpy as np

from pilotlight.contracts.manifest import Manifest, TensorSpec
from pilotlight.contracts.processing import ConstantInput, StateInput
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array


def build_constant_feeds(
    constants: Sequence[ConstantInput], manifest: Manifest, prepared_input: str, lengths: Sequence[int]
) -> dict[str, Array]:
    """Build the constant inputs beside `prepared_input`, whose rows have these lengths."""
    specs = {spec.name: spec for spec in manifest.inputs}
    feeds = {}
    for constant in constants:
        spec = specs[constant.input]
        shape = resolve_shape(spec, specs[prepared_input], len(lengths))
        if constant.value == "length":
            values = np.asarray(lengths).reshape(-1, *(1 for _ in shape[1:])) if shape else np.asarray(lengths[0])
        else:
            values = np.asarray(constant.value)
        feeds[spec.name] = np.array(np.broadcast_to(values, shape), NUMPY_DTYPES[spec.datatype])
    return feeds


def build_state_feeds(states: Sequence[StateInput], manifest: Manifest, prepared_input: str) -> dict[str, Array]:
    """Build the states of the first row, which are zeros."""
    zeros = [ConstantInput(input=state.input) for state in states]
    return build_constant_feeds(zeros, manifest, prepared_input, [0])


def resolve_shape(spec: TensorSpec, prepared: TensorSpec, rows: int) -> tuple[int, ...]:
    """Resolve the free dimensions: the first, and those named as the prepared input's first, are the number of rows."""
    batch = prepared.shape[0] if prepared.shape else None
    return tuple(
        size if isinstance(size, int) else rows if place == 0 or size == batch else 1
        for place, size in enumerate(spec.shape)
    )
