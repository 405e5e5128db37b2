"""The bytes of the Open Inference Protocol (V2), JSON form: what an infer request means, and how an answer reads.

It knows manifests and arrays, not stores or sessions. Source: kserve/open-inference-protocol (reference/protocols.md).
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct

from pilotlight.contracts import Manifest, TensorSpec
from pilotlight.errors import InvalidInputError, UnsupportedError
from pilotlight.runtime.datatypes import NUMPY_DTYPES
from pilotlight.runtime.session import Array

PLATFORM = "onnxruntime_onnx"
BINARY_LENGTH_HEADER = "inference-header-content-length"
IN_BINARY_ONLY = frozenset({"FP16", "BF16"})  # as in Triton: JSON numbers would promise digits that are not there
Parameters = dict[str, Any]


class InputBody(Struct):
    """One of the request's `inputs`; its data waits undecoded for the manifest to say what it must be."""

    name: str
    shape: list[Annotated[int, Meta(ge=0)]]
    datatype: str
    parameters: Parameters = {}
    data: Raw = Raw(b"")


class OutputBody(Struct):
    """One of the request's `outputs`."""

    name: str
    parameters: Parameters = {}


class InferBody(Struct):
    """The body of an infer request."""

    inputs: list[InputBody]
    id: str | None = None
    parameters: Parameters = {}
    outputs: list[OutputBody] | None = None


@dataclass(frozen=True)
class InferRequest:
    """An infer request as meant: arrays by input name, and the outputs that are wanted, in order."""

    id: str | None
    tensors: Mapping[str, Array]
    outputs: Sequence[str]


INFER_BODY = msgspec.json.Decoder(InferBody)


def decode_infer(body: bytes, headers: Mapping[str, str], manifest: Manifest) -> InferRequest:
    """Read an infer request for the model of `manifest`; `InvalidInputError` says what was expected instead."""
    if BINARY_LENGTH_HEADER in headers:
        raise UnsupportedError("Binary tensors are not served yet; send JSON (tritonclient: binary_data=False).")
    request = decode_body(body)
    specs = {spec.name: spec for spec in manifest.inputs}
    tensors: dict[str, Array] = {}
    for given in request.inputs:
        if given.name in tensors:
            raise InvalidInputError(f"Input {given.name!r} is there twice; {manifest.name} takes it once.")
        if given.name not in specs:
            raise InvalidInputError(f"{given.name!r} is not an input of {manifest.name}; its inputs are {list(specs)}.")
        tensors[given.name] = decode_tensor(given, specs[given.name])
    return InferRequest(request.id, tensors, wanted_outputs(request, manifest))


def encode_infer(manifest: Manifest, request: InferRequest, results: Mapping[str, Array]) -> dict[str, Any]:
    """The answer's JSON: the version that answered, the request's id if it had one, the outputs in their order."""
    specs = {spec.name: spec for spec in manifest.outputs}
    answer: dict[str, Any] = {"model_name": manifest.name, "model_version": str(manifest.version)}
    if request.id is not None:
        answer["id"] = request.id
    answer["outputs"] = [encode_tensor(specs[name], results[name]) for name in request.outputs]
    return answer


def metadata(manifest: Manifest, versions: Sequence[int]) -> dict[str, Any]:
    """The model metadata of the protocol; -1 stands for each free dimension."""
    return {
        "name": manifest.name,
        "versions": [str(version) for version in versions],
        "platform": PLATFORM,
        "inputs": [describe(spec) for spec in manifest.inputs],
        "outputs": [describe(spec) for spec in manifest.outputs],
    }


def describe(spec: TensorSpec) -> dict[str, Any]:
    """One tensor of the model metadata."""
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.free_shape}


def decode_body(body: bytes) -> InferBody:
    """The request's envelope, with the path of whatever is wrong in it."""
    try:
        return INFER_BODY.decode(body)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"The body is not an infer request: {exc}.") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidInputError(f"The body is not JSON (which has no NaN and no Infinity): {exc}.") from exc


def decode_tensor(given: InputBody, spec: TensorSpec) -> Array:
    """The input's data as an array of its declared shape; nested and flat row-major data are both right."""
    if given.datatype != spec.datatype:
        raise InvalidInputError(f"Input {given.name!r} is {given.datatype!r}, expected {spec.datatype}.")
    if spec.datatype in IN_BINARY_ONLY:
        raise InvalidInputError(f"Input {given.name!r}: {spec.datatype} travels in binary form only, not as JSON.")
    data = decode_data(given, spec)
    array = to_array(data, given, spec)
    if array.ndim > 1 and list(array.shape) != given.shape:
        raise InvalidInputError(f"Input {given.name!r} nests as {list(array.shape)}, but its shape is {given.shape}.")
    if array.size != prod(given.shape):
        wanted = f"shape {given.shape} takes {prod(given.shape)}"
        raise InvalidInputError(f"Input {given.name!r} has {array.size} values, but {wanted}.")
    return array.reshape(given.shape)


def decode_data(given: InputBody, spec: TensorSpec) -> list[Any]:
    """The input's data as lists of checked elements, as deep as they come, at most as deep as the shape is long."""
    text = bytes(given.data)
    if not text:
        raise InvalidInputError(f"Input {given.name!r} has no data; give it as {'data'!r}, nested or flat.")
    depth = max(1, nesting(text))
    if depth > max(1, len(given.shape)):
        raise InvalidInputError(f"Input {given.name!r} nests {depth} deep, but its shape is {given.shape}.")
    try:
        return decoder(spec.datatype, depth).decode(text)
    except (msgspec.ValidationError, msgspec.DecodeError) as exc:
        raise InvalidInputError(f"Input {given.name!r}: data is not {spec.datatype}: {exc}.") from exc


def to_array(data: list[Any], given: InputBody, spec: TensorSpec) -> Array:
    """Checked elements as an array of the model's type; ragged lists and values beyond the type are refused."""
    try:
        with np.errstate(over="ignore"):  # told below, in the caller's words
            array = np.array(data, dtype=NUMPY_DTYPES[spec.datatype])
    except ValueError as exc:
        raise InvalidInputError(f"Input {given.name!r} is ragged: its rows differ in length or depth.") from exc
    except OverflowError as exc:
        raise InvalidInputError(f"Input {given.name!r} holds a value beyond {spec.datatype}: {exc}.") from exc
    if array.dtype.kind == "O" and any(isinstance(value, list) for value in array.flat):
        raise InvalidInputError(f"Input {given.name!r} is ragged: its rows differ in length or depth.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidInputError(f"Input {given.name!r} holds a value beyond {spec.datatype}'s range.")
    return array


def nesting(text: bytes) -> int:
    """How many brackets open before the first element."""
    depth = 0
    for byte in text:
        if byte == ord("["):
            depth += 1
        elif byte not in b" \t\r\n":
            break
    return depth


@functools.cache
def decoder(datatype: str, depth: int) -> msgspec.json.Decoder[list[Any]]:
    """A decoder for lists of `datatype`, nested `depth` deep, that refuses every other element with its place."""
    kind: Any = element(datatype)
    for _ in range(depth):
        kind = list[kind]
    return msgspec.json.Decoder(kind)


def element(datatype: str) -> Any:  # noqa: ANN401 - a type, or an annotated one
    """The JSON element of a datatype, with its range; UINT64's upper end, beyond what Meta can say, is `to_array`'s."""
    numpy_dtype = NUMPY_DTYPES[datatype]  # type: ignore[index]  # a Datatype, which functools.cache forgets
    if numpy_dtype.kind == "u" and numpy_dtype.itemsize == 8:
        return Annotated[int, Meta(ge=0)]
    if numpy_dtype.kind in "iu":
        limits = np.iinfo(numpy_dtype)
        return Annotated[int, Meta(ge=int(limits.min), le=int(limits.max))]
    return {"b": bool, "f": float, "O": str}[numpy_dtype.kind]


def wanted_outputs(request: InferBody, manifest: Manifest) -> list[str]:
    """The names of the outputs to answer with: those asked for, else all of the model's."""
    known = [spec.name for spec in manifest.outputs]
    wanted = [output.name for output in request.outputs or ()]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InvalidInputError(f"{unknown[0]!r} is not an output of {manifest.name}; its outputs are {known}.")
    refuse_extensions(request)
    return wanted or known


def refuse_extensions(request: InferBody) -> None:
    """Say so when a request counts on a protocol extension that is not built, rather than answer something else."""
    asked = {key for part in (request, *(request.outputs or ())) for key, value in part.parameters.items() if value}
    for key in sorted(asked & {"binary_data", "binary_data_output", "classification", "sequence_id"}):
        raise UnsupportedError(f"The parameter {key!r} is not served yet; leave it out.")


def encode_tensor(spec: TensorSpec, array: Array) -> dict[str, Any]:
    """One output of the answer: flat row-major data, null for NaN and infinities."""
    if spec.datatype in IN_BINARY_ONLY:
        raise InvalidInputError(f"Output {spec.name!r} is {spec.datatype}, which travels in binary form only.")
    return {
        "name": spec.name,
        "datatype": spec.datatype,
        "shape": list(array.shape),
        "data": [texts(value) for value in array.ravel()] if array.dtype == object else array.ravel().tolist(),
    }


def texts(value: object) -> str:
    """A BYTES element as JSON has it: text."""
    return value.decode() if isinstance(value, bytes) else str(value)
