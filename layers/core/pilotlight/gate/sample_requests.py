"""Read a publisher's requests for a graph: an npz file of its inputs by name, or V2 infer requests in JSON."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from pilotlight.contracts.manifest import TensorSpec
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array, cast_numbers
from pilotlight.runtime.request_search import Feeds

MAX_REQUESTS = 8  # of a file, that are recorded


class SampleTensor(Struct, frozen=True):
    """An input of a V2 infer request."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[Any]


class SampleBody(Struct, frozen=True):
    """A V2 infer request, of which the inputs count."""

    inputs: tuple[SampleTensor, ...]


def load_samples(file: Path, inputs: Sequence[TensorSpec]) -> tuple[Feeds, ...]:
    """Load the requests, with the datatypes of the graph's inputs; `InvalidInputError` says what does not fit."""
    try:
        requests = load_npz(file) if zipfile.is_zipfile(file) else load_json(file)
    except OSError as exc:
        raise InvalidInputError(f"Cannot read {file}: {exc.strerror}.") from exc
    return tuple(build_sample(file, arrays, inputs) for arrays in requests[:MAX_REQUESTS])


def load_npz(file: Path) -> list[Mapping[str, Array]]:
    """Load the one request of an npz file."""
    try:
        with np.load(file, allow_pickle=False) as held:
            return [{name: held[name] for name in held.files}]
    except (ValueError, OSError, EOFError, SyntaxError, zlib.error, zipfile.BadZipFile) as exc:
        raise InvalidInputError(
            f"{file} does not read as arrays: {exc}; save it with numpy.savez, text as arrays of dtype str."
        ) from exc


def load_json(file: Path) -> list[Mapping[str, Array]]:
    """Load a V2 infer request, or a list of them."""
    try:
        content = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
        kind = list[SampleBody] if content.lstrip().startswith(b"[") else SampleBody
        read: Any = msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise InvalidInputError(
            f'{file} is neither an npz file nor a V2 request {{"inputs": [{{"name", "shape", "datatype", "data"}}]}}: '
            f"{exc}."
        ) from exc
    requests = read if isinstance(read, list) else [read]
    return [{tensor.name: to_array(file, tensor) for tensor in request.inputs} for request in requests]


def to_array(file: Path, tensor: SampleTensor) -> Array:
    """Convert a tensor of JSON to an array, whether its data are flat or nested."""
    dtype = NUMPY_DTYPES.get(tensor.datatype)  # type: ignore[call-overload]  # any text may be asked for
    if dtype is None:
        raise InvalidInputError(f"{file} has {tensor.name!r} of datatype {tensor.datatype!r}, which V2 does not know.")
    try:
        given = np.array(tensor.data, object).reshape(tensor.shape)
        with np.errstate(all="ignore"):
            values = given if dtype.kind == "O" else np.array(given.tolist(), dtype)
    except (ValueError, TypeError, OverflowError) as exc:
        raise InvalidInputError(
            f"{file} has {tensor.name!r} with data that do not fit its shape or datatype, {list(tensor.shape)} "
            f"{tensor.datatype}: {exc}."
        ) from exc
    is_lost = np.isinf(values) & np.isfinite(given.astype(np.float64)) if dtype.kind == "f" else values != given
    if is_lost.any():
        raise InvalidInputError(
            f"{file} has {tensor.name!r} with values that are no {tensor.datatype}, such as {given[is_lost][0]!r}."
        )
    return values


def build_sample(file: Path, arrays: Mapping[str, Array], inputs: Sequence[TensorSpec]) -> Feeds:
    """Check names and dimensions, and convert datatypes where no value is lost."""
    names = [spec.name for spec in inputs]
    missing, extra = [n for n in names if n not in arrays], sorted(set(arrays) - set(names))
    if missing or extra:
        wrong = [f"{name!r} is missing" for name in missing] + [f"{name!r} is not one of them" for name in extra]
        raise InvalidInputError(f"{file} does not fit: the graph has the inputs {names}; {', '.join(wrong)}.")
    return {spec.name: convert_values(file, spec, arrays[spec.name]) for spec in inputs}


def convert_values(file: Path, spec: TensorSpec, values: Array) -> Array:
    """Convert an array to the input's datatype; `InvalidInputError` if its shape or a value does not fit."""
    expected = f"{spec.datatype} [{', '.join(map(str, spec.shape))}]"
    fits = len(spec.shape) == values.ndim and all(
        isinstance(wanted, str) or wanted == size for wanted, size in zip(spec.shape, values.shape, strict=False)
    )
    if not fits:
        raise InvalidInputError(f"{file} has {spec.name!r} of shape {list(values.shape)}; the graph takes {expected}.")
    if spec.datatype == "BYTES":
        return np.array([str(value) for value in values.flat], object).reshape(values.shape)
    dtype = NUMPY_DTYPES[spec.datatype]
    if values.dtype.kind not in "biuf":
        raise InvalidInputError(f"{file} has {spec.name!r} of {values.dtype}; the graph takes {expected}.")
    converted, lost = cast_numbers(values, dtype)
    if lost is not None:
        raise InvalidInputError(
            f"{file} has {spec.name!r} with values that are no {spec.datatype}, such as {values.flat[lost]}; the graph "
            f"takes {expected}."
        )
    return converted
