"""A V2 tensor's data as JSON: decode nested or flat lists to an array, and encode an array as a flat list.

This module depends on a tensor's datatype and shape, not on requests.
"""

import binascii
import functools
from collections.abc import Sequence
from math import prod
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from pilotlight.api import written_numbers
from pilotlight.contracts.manifest import Datatype
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array

BINARY_ONLY_DATATYPES = frozenset(
    {"FP16", "BF16"}
)  # as in Triton: JSON numbers would suggest digits that these types do not have
MAX_FLOATS: dict[Datatype, float] = {name: written_numbers.LARGEST_NUMBERS[name] for name in ("FP32", "FP64")}


def decode_json_tensor(
    text: bytes, name: str, datatype: Datatype, shape: Sequence[int], *, nullable: bool = False
) -> Array:
    """Decode the data of the input `name` to an array of `shape`; errors contain the place of the wrong element.

    If the input is `nullable`, null becomes NaN among floats and None among texts.
    """
    if datatype in BINARY_ONLY_DATATYPES:
        raise InvalidInputError(f"Input {name!r}: {datatype} travels in binary form only, not as JSON.")
    nullable = nullable and NUMPY_DTYPES[datatype].kind in "fO"
    if not shape and text and not text.lstrip().startswith(b"["):
        text = b"[%b]" % text  # a tensor without dimensions, whose one value needs no list
    try:
        data: Any = decode_elements(text, name, datatype, shape, nullable=nullable)
    except ElementError:
        data = written_numbers.decode_whole_numbers(text, datatype, count_nesting(text))
        if data is None:
            raise
    if isinstance(data, np.ndarray):
        array = data
    elif datatype in MAX_FLOATS and not nullable and data and isinstance(data[0], float):
        array = np.array(data, NUMPY_DTYPES[datatype])  # a flat list of checked numbers needs no more checks
    else:
        array = to_array(data, name, datatype, nullable=nullable)
    if array.ndim > 1 and array.shape != tuple(shape):
        raise InvalidInputError(f"Input {name!r} nests as {list(array.shape)}, but its shape is {list(shape)}.")
    if array.size != prod(shape):
        expected = f"shape {list(shape)} takes {prod(shape)}"
        raise InvalidInputError(f"Input {name!r} has {array.size} values, but {expected}.")
    return array.reshape(shape)


def encode_json_tensor(array: Array, name: str, datatype: Datatype) -> list[Any]:
    """Encode an output as a flat list, row by row; NaN and infinities become null when the list becomes JSON.

    Texts are themselves, and the bytes of other files base64, as in requests.
    """
    if datatype in BINARY_ONLY_DATATYPES:
        raise InvalidInputError(f"Output {name!r} is {datatype}, which travels in binary form only; ask for that.")
    if array.dtype == object:
        return list(map(encode_json_element, array.ravel()))
    values: list[Any] = array.ravel().tolist()
    return values


def encode_json_element(value: object) -> str:
    """Encode an element of BYTES: a text as it is, other bytes such as those of a PNG, which is no UTF-8, in base64."""
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return binascii.b2a_base64(value, newline=False).decode()


def decode_elements(text: bytes, name: str, datatype: Datatype, shape: Sequence[int], *, nullable: bool) -> list[Any]:
    """Decode the data to lists of checked elements, nested as sent, at most as deep as the shape has dimensions."""
    if not text:
        raise InvalidInputError(f"Input {name!r} has no data; give it as 'data', nested or flat.")
    depth = max(1, count_nesting(text))
    if depth > max(1, len(shape)):
        raise InvalidInputError(f"Input {name!r} nests {depth} deep, but its shape is {list(shape)}.")
    try:
        return build_decoder(datatype, depth, nullable=nullable).decode(text)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ElementError(f"Input {name!r}: data is not {datatype}: {exc}.") from exc


class ElementError(InvalidInputError):
    """An element is not of its datatype, as it is written."""


def to_array(data: list[Any], name: str, datatype: Datatype, *, nullable: bool = False) -> Array:
    """Convert checked elements to an array of `datatype`; refuse ragged lists and values beyond its range.

    If the input is `nullable`, an element may be None, which is NaN among floats.
    """
    try:
        with np.errstate(over="ignore"):  # the error is raised below, in the caller's terms
            array = np.array(data, dtype=NUMPY_DTYPES[datatype])
    except ValueError as exc:
        raise build_ragged_error(name) from exc
    except OverflowError as exc:
        raise InvalidInputError(f"Input {name!r} holds a value beyond {datatype}: {exc}.") from exc
    if array.dtype.kind == "O" and any(isinstance(value, list) for value in array.flat):
        raise build_ragged_error(name)
    if array.dtype.kind == "f" and (np.isinf(array).any() if nullable else not np.isfinite(array).all()):
        raise InvalidInputError(f"Input {name!r} holds a value beyond {datatype}'s range.")
    return array


def build_ragged_error(name: str) -> InvalidInputError:
    """Build the error for lists that do not form an array."""
    return InvalidInputError(f"Input {name!r} is ragged: its rows differ in length or depth.")


def count_nesting(text: bytes) -> int:
    """Count the brackets before the first element."""
    depth = 0
    for byte in text:
        if byte == ord("["):
            depth += 1
        elif byte not in b" \t\r\n":
            break
    return depth


@functools.cache
def build_decoder(datatype: Datatype, depth: int, *, nullable: bool) -> msgspec.json.Decoder[list[Any]]:
    """Build a decoder for lists of `datatype`, nested `depth` deep; its errors have the place of the wrong element."""
    kind: Any = get_element_type(datatype) | None if nullable else get_element_type(datatype)
    for _ in range(depth):
        kind = list[kind]
    return msgspec.json.Decoder(kind)


def get_element_type(datatype: Datatype) -> Any:  # noqa: ANN401 - a type, or an annotated one
    """Return the JSON type of a datatype's element, with its range; `to_array` checks UINT64's, too large for Meta."""
    dtype = NUMPY_DTYPES[datatype]
    if dtype.kind == "u" and dtype.itemsize == 8:
        return Annotated[int, Meta(ge=0)]
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return Annotated[int, Meta(ge=int(limits.min), le=int(limits.max))]
    if datatype in MAX_FLOATS:
        return Annotated[float, Meta(ge=-MAX_FLOATS[datatype], le=MAX_FLOATS[datatype])]
    return {"b": bool, "f": float, "O": str}[dtype.kind]
