"""The datatypes of the V2 protocol, as numpy and onnxruntime name them."""

from typing import Any

import numpy as np

from pilotlight.contracts.manifest import Datatype

Array = np.ndarray[Any, Any]  # of any shape and dtype, which manifests and requests determine

# BF16 has no numpy type: its arrays hold the bits. BYTES are objects.
NUMPY_DTYPES: dict[Datatype, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "BF16": np.dtype(np.uint16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}

ORT_DATATYPES: dict[str, Datatype] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


def cast_numbers(values: Array, dtype: "np.dtype[Any]") -> tuple[Array, int | None]:
    """Cast numbers, and find the place, in the flat array, of the first that the type does not hold; None of none.

    A value is lost that is not whole or beyond the type's range; floats are rounded, but none becomes infinite.
    """
    if values.dtype == dtype:
        return np.asarray(values, order="C"), None
    with np.errstate(all="ignore"):
        cast = np.asarray(values, dtype, order="C")
        lost = np.isfinite(values) & ~np.isfinite(cast) if dtype.kind == "f" else cast != values
    return cast, next(iter(np.flatnonzero(lost).tolist()), None)
