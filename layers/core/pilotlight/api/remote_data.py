"""A V2 tensor's data from the store: raw little-endian bytes, or a .npy file, below `uploads/`.

    {"name": "image", "shape": [64, 3, 224, 224], "datatype": "FP32", "parameters": {"s3_uri": "s3://bucket/uploads/..."}}

What lies there is measured by HEAD before a byte of it is held: against the shape, and against the memory that
requests may take. It is read only as it was measured (If-Match), and from no address but the stack's own
(pilotlight.uploads).
"""

import io
from collections.abc import Sequence
from math import prod

import numpy as np

from pilotlight import uploads
from pilotlight.contracts import Datatype
from pilotlight.errors import InvalidInputError, TooLargeError
from pilotlight.registry import Registry
from pilotlight.runtime.datatypes import NUMPY_DTYPES

MAGIC = b"\x93NUMPY"
HEADER = 65_536  # bytes that a .npy file may have before its numbers; numpy's own is 128


class Uploads:
    """The uploads of a registry's store; `budget` is how many bytes of them one request may take."""

    def __init__(self, registry: Registry, budget: int) -> None:
        self._registry = registry  # whose store is another one after a snapshot
        self.budget = budget

    def read(self, uri: object, name: str, datatype: Datatype, shape: Sequence[int], left: int) -> memoryview:
        """The bytes for the input `name`, at most `left` of them.

        `InvalidInputError` for another address or size, `TooLargeError` beyond the memory, `NotFoundError` for nothing.
        """
        path = uploads.key(self._registry.store.url, uri)
        size, e_tag = self._registry.store.stamp(path)
        if size > left:
            raise TooLargeError(f"Input {name!r} is {size:,} bytes at {path}; of this request {left:,} more are held.")
        wanted = None if datatype == "BYTES" else prod(shape) * NUMPY_DTYPES[datatype].itemsize
        if wanted is not None and not wanted <= size <= wanted + HEADER:
            takes = f"shape {list(shape)} of {datatype} takes {wanted:,}"
            raise InvalidInputError(f"Input {name!r} has {size:,} bytes at {path}, but {takes}.")
        data = self._bytes(path, size, e_tag)
        return memoryview(data) if wanted is None or size == wanted else values(data, name, datatype, shape)

    def _bytes(self, path: str, size: int, e_tag: str) -> bytearray:
        data, position = bytearray(size), 0
        for block in self._registry.store.blocks(path, 0, size, e_tag):
            data[position : position + len(block)] = block
            position += len(block)
        return data


def values(data: bytearray, name: str, datatype: Datatype, shape: Sequence[int]) -> memoryview:
    """The numbers of a .npy file that says of itself what the request says of it."""
    stream = io.BytesIO(data[: HEADER + len(MAGIC)])
    try:
        major, _ = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        said, columns_first, dtype = read(stream)
    except ValueError as exc:
        raise InvalidInputError(f"Input {name!r} is neither raw bytes of its shape nor a .npy file: {exc}.") from exc
    wanted = NUMPY_DTYPES[datatype].newbyteorder("<")
    if (*said,) != (*shape,) or dtype.newbyteorder("=") != wanted.newbyteorder("=") or dtype.str != wanted.str:
        raise InvalidInputError(f"Input {name!r} is {dtype} of {list(said)} in its .npy file, not {datatype} {shape}.")
    if columns_first and len(said) > 1:
        raise InvalidInputError(f"Input {name!r} lies column by column; save np.ascontiguousarray of it.")
    return memoryview(data)[stream.tell() :]
