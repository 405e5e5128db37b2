"""Tensors in the store: inputs that a request refers to, and outputs that are too large for a response.

A request refers to raw little-endian bytes, or to a .npy file, below `uploads/`:

    {"name": "image", "shape": [64, 3, 224, 224], "datatype": "FP32", "parameters": {"s3_uri": "s3://bucket/uploads/..."}}

The size of the object is compared with the shape and with the memory limit of requests before it is read. It is read
in the state in which it was measured (If-Match), and only from the stack's own store (pilotlight.contracts.upload).

An answer beyond Lambda's limit is refused; if the stack lets this function write to `answers/`, its outputs are stored
there instead, and the answer has their `s3_uri`, their `bytes` and a `file_id` for GET /v1/files/{file}/content.

A tenant's requests read his own uploads alone, and their outputs are stored below a folder of his own.
"""

import io
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from pilotlight.contracts import upload
from pilotlight.contracts.batch import generate_sortable_id
from pilotlight.contracts.manifest import Datatype
from pilotlight.errors import InvalidInputError, TooLargeError
from pilotlight.registry.registry import Registry
from pilotlight.runtime.datatypes import NUMPY_DTYPES

NPY_MAGIC = b"\x93NUMPY"
MAX_NPY_HEADER_BYTES = 65_536  # bytes that a .npy file may have before its numbers; numpy writes 128


class StoredOutputs:
    """Stores outputs that are too large for a response, if that is `enabled`."""

    def __init__(self, registry: Registry, *, enabled: bool, tenant: str = "") -> None:
        self._registry = registry
        self._enabled = enabled
        self._tenant = tenant

    def for_tenant(self, tenant: str) -> "StoredOutputs":
        """Return the same for a tenant's requests."""
        return StoredOutputs(self._registry, enabled=self._enabled, tenant=tenant) if tenant else self

    def store_outputs(self, outputs: Mapping[str, bytes], size: int) -> dict[str, dict[str, Any]]:
        """Store outputs and return the parameters that locate each; raise `TooLargeError` if that is not enabled."""
        if not self._enabled:
            raise TooLargeError(
                f"The answer has {size:,} bytes, more than Lambda sends. Ask for fewer items or outputs, or by "
                "POST /v1/batches, whose answers may be larger; or deploy with LargeAnswers=on."
            )
        store, name = self._registry.store, generate_sortable_id()
        parameters = {}
        for place, (output, data) in enumerate(outputs.items()):
            path = upload.output_path(name, place, self._tenant)
            store.create(path, data)
            parameters[output] = {
                "s3_uri": f"{store.url}/{path}",
                "bytes": len(data),
                "file_id": f"file-{name}-{place}",
            }
        return parameters


class UploadedTensors:
    """The uploads of a registry's store; `budget_bytes` is the most that one request may read."""

    def __init__(self, registry: Registry, budget_bytes: int, tenant: str = "") -> None:
        self._registry = registry  # its store is replaced after a snapshot
        self.budget_bytes = budget_bytes
        self._tenant = tenant

    def for_tenant(self, tenant: str) -> "UploadedTensors":
        """Return those of a tenant."""
        return UploadedTensors(self._registry, self.budget_bytes, tenant) if tenant else self

    def read_tensor(
        self, uri: object, name: str, datatype: Datatype, shape: Sequence[int], remaining_bytes: int
    ) -> memoryview:
        """Read the bytes of the input `name`, at most `remaining_bytes` of them.

        Raises `InvalidInputError` for another store's address or a wrong size, `TooLargeError` beyond the limit, and
        `NotFoundError` if there is no such object.
        """
        path = upload.parse_upload_uri(self._registry.store.url, uri, self._tenant)
        size, e_tag = self._registry.store.get_size_and_e_tag(path)
        if size > remaining_bytes:
            raise TooLargeError(
                f"Input {name!r} is {size:,} bytes at {path}; of this request {remaining_bytes:,} more are held."
            )
        expected_bytes = None if datatype == "BYTES" else prod(shape) * NUMPY_DTYPES[datatype].itemsize
        if expected_bytes is not None and not expected_bytes <= size <= expected_bytes + MAX_NPY_HEADER_BYTES:
            takes = f"shape {list(shape)} of {datatype} takes {expected_bytes:,}"
            raise InvalidInputError(f"Input {name!r} has {size:,} bytes at {path}, but {takes}.")
        data = self._read_bytes(path, size, e_tag)
        return (
            memoryview(data)
            if expected_bytes is None or size == expected_bytes
            else read_npy_values(data, name, datatype, shape)
        )

    def _read_bytes(self, path: str, size: int, e_tag: str) -> bytearray:
        data, position = bytearray(size), 0
        for block in self._registry.store.iterate_blocks(path, 0, size, e_tag):
            data[position : position + len(block)] = block
            position += len(block)
        return data


def read_npy_values(data: bytearray, name: str, datatype: Datatype, shape: Sequence[int]) -> memoryview:
    """Return the numbers of a .npy file, whose header must agree with the request."""
    stream = io.BytesIO(data[: MAX_NPY_HEADER_BYTES + len(NPY_MAGIC)])
    try:
        major, _ = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        stored_shape, columns_first, dtype = read_header(stream)
    except ValueError as exc:
        raise InvalidInputError(f"Input {name!r} is neither raw bytes of its shape nor a .npy file: {exc}.") from exc
    expected_dtype = NUMPY_DTYPES[datatype].newbyteorder("<")
    if (
        (*stored_shape,) != (*shape,)
        or dtype.newbyteorder("=") != expected_dtype.newbyteorder("=")
        or dtype.str != expected_dtype.str
    ):
        raise InvalidInputError(
            f"Input {name!r} is {dtype} of {list(stored_shape)} in its .npy file, not {datatype} {shape}."
        )
    if columns_first and len(stored_shape) > 1:
        raise InvalidInputError(f"Input {name!r} lies column by column; save np.ascontiguousarray of it.")
    return memoryview(data)[stream.tell() :]
