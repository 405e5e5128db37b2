"""A V2 tensor's data as bytes: little-endian, row by row, no padding; each BYTES element follows its 4-byte length.

This module depends on a tensor's datatype and shape, not on requests. Source: Triton's binary tensor data extension.
"""

import struct
from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from pilotlight.contracts.manifest import Datatype
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array

LENGTH_PREFIX = struct.Struct("<I")  # the length of a BYTES element, in bytes


def decode_binary_tensor(
    data: memoryview, name: str, datatype: Datatype, shape: Sequence[int], *, opaque: bool = False
) -> Array:
    """Decode the bytes of the input `name` to an array of `shape`, without a copy where they are aligned in memory.

    BYTES elements become str, which a graph takes; `opaque` ones, such as those of a photograph, stay bytes. Raises
    `InvalidInputError` for more or fewer bytes than the shape takes, before anything is allocated.
    """
    if datatype == "BYTES":
        return decode_byte_elements(data, name, shape, bytes if opaque else decode_text)
    dtype = NUMPY_DTYPES[datatype]
    if len(data) != prod(shape) * dtype.itemsize:
        expected = f"shape {list(shape)} of {datatype} takes {prod(shape) * dtype.itemsize}"
        raise InvalidInputError(f"Input {name!r} has {len(data)} bytes, but {expected}.")
    array = np.frombuffer(data, dtype.newbyteorder("<"))
    if dtype.kind == "b":
        array = array.view(np.uint8) != 0  # any byte but 0 is true; numpy misreads some of them
    return (array if array.flags.aligned else array.copy()).reshape(shape)


def encode_binary_tensor(array: Array) -> bytes:
    """Encode an output."""
    if array.dtype == object:
        return b"".join(
            add_length_prefix(value if isinstance(value, bytes) else str(value).encode()) for value in array.ravel()
        )
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def decode_byte_elements(
    data: memoryview, name: str, shape: Sequence[int], parse_element: Callable[[memoryview], object]
) -> Array:
    """Decode BYTES elements to an array of the results of `parse_element`."""
    count = prod(shape)
    if count * LENGTH_PREFIX.size > len(data):
        raise InvalidInputError(f"Input {name!r} has {len(data)} bytes, too few for {count} elements with lengths.")
    array, position = np.empty(count, object), 0
    for index in range(count):
        what = f"Input {name!r}: element {index}"
        start, position = locate_element(data, position, what)
        try:
            array[index] = parse_element(data[start:position])
        except UnicodeDecodeError as exc:
            raise InvalidInputError(f"{what} is not UTF-8: {exc.reason}.") from exc
    if position != len(data):
        raise InvalidInputError(f"Input {name!r} has {len(data) - position} bytes left over after {count} elements.")
    return array.reshape(shape)


def locate_element(data: memoryview, position: int, what: str) -> tuple[int, int]:
    """Return where the BYTES element at `position` starts, which is after its length, and where it ends."""
    start = position + LENGTH_PREFIX.size
    if start > len(data):
        raise InvalidInputError(f"{what} ends before its length does.")
    (length,) = LENGTH_PREFIX.unpack_from(data, position)
    if start + length > len(data):
        raise InvalidInputError(f"{what} says {length} bytes, but {len(data) - start} follow.")
    return start, start + length


def decode_text(data: memoryview) -> str:
    """Decode an element as text; raise `UnicodeDecodeError` if it is not UTF-8."""
    return str(data, "utf-8")


def add_length_prefix(value: bytes) -> bytes:
    """Prefix a BYTES element with its length."""
    return LENGTH_PREFIX.pack(len(value)) + value
