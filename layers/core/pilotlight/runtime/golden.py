"""Golden requests: V2 infer requests with the answers that the served variant gave when it was exported.

The gate, a warm function and a deploy replay them when they load the version, and compare the answers.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Literal

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from pilotlight.contracts.manifest import Datatype, Precision
from pilotlight.errors import ModelRefusedError
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array
from pilotlight.runtime.session import Session


class GoldenTensor(Struct, frozen=True):
    """A tensor as in the V2 protocol's JSON: its values flat, row by row; fewer than the shape has are repeated."""

    name: str
    shape: tuple[int, ...]
    datatype: Datatype
    data: tuple[float | int | str | bool, ...]

    @property
    def is_pattern(self) -> bool:
        """Whether the values are repeated to fill the shape."""
        return 0 < len(self.data) < prod(self.shape)

    def expand(self) -> "GoldenTensor":
        """Return the tensor with all its values, as a V2 request has them."""
        return replace(self, data=tuple(to_array(self).ravel().tolist())) if self.is_pattern else self


class GoldenRequest(Struct, frozen=True):
    """The body of a V2 infer request."""

    inputs: tuple[GoldenTensor, ...]


class GoldenResponse(Struct, frozen=True):
    """The outputs of the body of its answer."""

    outputs: tuple[GoldenTensor, ...]


class GoldenExchange(Struct, frozen=True):
    """A golden request and its answer."""

    request: GoldenRequest
    response: GoldenResponse


class GoldenPrompt(Struct, frozen=True):
    """A prompt of a language model, and the likeliest tokens that follow it, each far likelier than the next one."""

    text: str
    tokens: tuple[int, ...]  # of the prompt
    expected: tuple[int, ...]
    expected_text: str


class GoldenDocument(Struct, frozen=True, kw_only=True):
    """`golden.json`: |expected - actual| must stay within the tolerance, for every output value of every exchange.

    A language model has prompts in place of exchanges (`runtime.golden_prompts`).
    """

    schema_version: Literal[1, 2, 3] = 1  # 2: with patterns, 3: with prompts, which older readers do not know
    variant: Precision
    tolerance: float = 0.0
    exchanges: tuple[GoldenExchange, ...] = ()
    prompts: tuple[GoldenPrompt, ...] = ()


def replay_exchanges(document: GoldenDocument, session: Session) -> None:
    """Run the recorded requests on a session; `ModelRefusedError` if an answer differs from the recorded one."""
    for number, exchange in enumerate(document.exchanges, 1):
        answers = session.run(to_arrays(exchange.request.inputs))
        for name, expected in to_arrays(exchange.response.outputs).items():
            compare_output(number, name, expected, answers.get(name), document.tolerance)


def to_arrays(tensors: Sequence[GoldenTensor]) -> Mapping[str, Array]:
    """Convert tensors of the JSON to arrays, by name."""
    return {tensor.name: to_array(tensor) for tensor in tensors}


def to_array(tensor: GoldenTensor) -> Array:
    """Convert a tensor of the JSON to an array."""
    values = np.array(tensor.data, NUMPY_DTYPES[tensor.datatype])
    return np.resize(values, tensor.shape) if tensor.is_pattern else values.reshape(tensor.shape)


def compare_output(number: int, name: str, expected: Array, actual: Array | None, tolerance: float) -> None:
    """Refuse an answer that is too far from the recorded one, of another shape, or NaN."""
    if actual is None or actual.shape != expected.shape:
        description = "missing" if actual is None else f"of shape {list(actual.shape)}"
        raise ModelRefusedError(
            f"Golden request {number} is answered with {name!r} {description}, recorded as {list(expected.shape)}."
        )
    if expected.dtype == object:
        if not np.array_equal(expected, actual):
            raise ModelRefusedError(f"Golden request {number} is answered otherwise than was recorded in {name!r}.")
        return
    difference = float(np.abs(expected.astype(np.float64) - actual.astype(np.float64)).max(initial=0.0))
    if not difference <= tolerance:
        raise ModelRefusedError(
            f"Golden request {number} is answered {difference:.3g} away from what was recorded in {name!r}, tolerance "
            f"{tolerance:.3g}."
        )
