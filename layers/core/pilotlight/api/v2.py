"""The Open Inference Protocol (V2): what an infer request means, and how an answer reads.

Requests and answers are JSON, with tensors in it or in binary form behind it. It knows manifests and arrays, not stores
or sessions. Sources: kserve/open-inference-protocol, Triton's protocol extensions (reference/protocols.md).
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, cast

import msgspec
import numpy as np
from msgspec import Struct

from pilotlight.api import compression, v2_binary, v2_tensors
from pilotlight.api.http import JSON, Response
from pilotlight.api.large_tensors import Answers, Uploads
from pilotlight.api.v2_json import InferBody, InputBody, OutputBody, decode_body, flag
from pilotlight.contracts.manifest import Datatype, Manifest, TensorSpec
from pilotlight.errors import InvalidInputError, TooLargeError, UnsupportedError
from pilotlight.processing.signature import Input, Signature, choose, signatures
from pilotlight.runtime.datatypes import NUMPY_DTYPES
from pilotlight.runtime.session import Array

PLATFORM = "onnxruntime_onnx"
# Of the protocol; only what works is advertised.
EXTENSIONS = (
    "binary_tensor_data", "classification", "model_configuration", "model_repository", "parameters", "statistics",
)  # fmt: skip
# Parameters of protocol extensions that are not served.
STATEFUL = ("sequence_id", "sequence_start", "sequence_end")
SHARED = "shared_memory_region"
BINARY = "application/octet-stream"
MOST_DIMENSIONS = 32  # of a tensor; numpy ends at 64
MOST_VALUES = compression.LIMIT  # of a tensor: a body of that many bytes holds no more
LARGEST_BINARY = 4_600_000  # bytes of an answer that Lambda sends, 6 MB, before base64 makes a third more of it
LARGEST_TEXT = 5_500_000  # the same of JSON, whose quotes are escaped
JSON_LENGTH = "inference-header-content-length"  # how many bytes of the body are JSON; tensors follow


class Wanted(Struct, frozen=True):
    """An output to answer with: in binary form or as JSON, as it is or as the best `classes` of its last dimension."""

    name: str
    binary: bool = False
    classes: int | None = None


class InferRequest(Struct, frozen=True):
    """An infer request as meant: arrays by input name, and the outputs that are wanted, in order."""

    id: str | None
    tensors: Mapping[str, Array]
    outputs: Sequence[Wanted]


class Tail:
    """The tensors that do not stand in the JSON: behind it, taken one after the other, or among the uploads."""

    def __init__(self, data: memoryview, uploads: Uploads | None = None) -> None:
        self._data = data
        self._uploads = uploads
        self._fetched = 0  # bytes

    def take(self, size: int, name: str) -> memoryview:
        """The next `size` bytes, which belong to the input `name`."""
        if size > len(self._data):
            raise InvalidInputError(f"Input {name!r} says {size} binary bytes, but {len(self._data)} are left.")
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def fetch(self, uri: object, name: str, datatype: Datatype, shape: Sequence[int]) -> memoryview:
        """The bytes that lie at the address, which all inputs together may not take too many of."""
        if self._uploads is None:
            raise UnsupportedError(f"Input {name!r} is an s3_uri, which is not read here.")
        data = self._uploads.read(uri, name, datatype, shape, self._uploads.budget - self._fetched)
        self._fetched += len(data)
        return data

    def close(self) -> None:
        """Refuse bytes that belong to no input."""
        if len(self._data):
            raise InvalidInputError(f"{len(self._data)} bytes are left over after the inputs' binary_data_size.")


def decode_infer(
    body: bytes, headers: Mapping[str, str], manifest: Manifest, uploads: Uploads | None = None
) -> InferRequest:
    """Read an infer request for the model of `manifest`; `InvalidInputError` says what was expected instead.

    Tensors that it only names by `s3_uri` are taken from the `uploads`.
    """
    body = compression.decompress(body, headers.get("content-encoding", ""))
    length = json_length(headers, len(body))
    if length == 0:
        return raw_request(memoryview(body), manifest)
    request, tail = decode_body(memoryview(body)[:length]), Tail(memoryview(body)[length:], uploads)
    way = choose(manifest, {given.name: given.datatype for given in request.inputs})
    tensors = decode_inputs(request, tail, manifest, way)
    tail.close()
    return InferRequest(request.id, tensors, wanted_outputs(request, manifest, way))


def encode_infer(
    manifest: Manifest,
    request: InferRequest,
    results: Mapping[str, Array],
    accepted: str = "",
    answers: Answers | None = None,
) -> Response:
    """The answer: the version that answered, the request's id if it had one, the outputs in their order.

    One that is too large to be sent goes to the `answers`; without them, it goes where there is no limit.
    """
    specs = every_output(manifest)
    tails: list[bytes] = []
    answer: dict[str, Any] = {"model_name": manifest.name, "model_version": str(manifest.version)}
    if request.id is not None:
        answer["id"] = request.id
    answer["outputs"] = [
        encode_output(wanted, specs[wanted.name], results[wanted.name], manifest.labels, tails)
        for wanted in request.outputs
    ]
    text = msgspec.json.encode(answer)
    body, encoding = compression.compress(b"".join((text, *tails)), accepted)
    binary = bool(tails) or encoding is not None
    if answers is not None and len(body) > (LARGEST_BINARY if binary else LARGEST_TEXT):
        data = {wanted.name: raw(wanted, results, manifest.labels) for wanted in request.outputs}
        told = answers.put(data, sum(map(len, tails), len(text)))
        answer["outputs"] = [by_address(output, told[output["name"]]) for output in answer["outputs"]]
        tails, text = [], msgspec.json.encode(answer)
        body, encoding = compression.compress(text, accepted)
    headers = {"content-type": BINARY, JSON_LENGTH: str(len(text))} if tails else {"content-type": JSON}
    if encoding is not None:
        headers["content-encoding"] = encoding
    return Response(200, body, headers, binary=bool(tails) or encoding is not None)


def by_address(output: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """One output of the answer, whose data lie where the parameters say."""
    return {"name": output["name"], "datatype": output["datatype"], "shape": output["shape"], "parameters": told}


def metadata(manifest: Manifest, versions: Sequence[int]) -> dict[str, Any]:
    """The model metadata of the protocol, in its first signature; -1 stands for each free dimension."""
    return {
        "name": manifest.name,
        "versions": [str(version) for version in versions],
        "platform": PLATFORM,
        "inputs": [describe(given.spec) for given in signatures(manifest)[0].inputs],
        "outputs": [describe(spec) for spec in signatures(manifest)[0].outputs],
    }


def every_output(manifest: Manifest) -> Mapping[str, TensorSpec]:
    """All outputs that may be asked for, by name."""
    first = signatures(manifest)[0]
    return {spec.name: spec for spec in (*first.outputs, *first.more)}


def describe(spec: TensorSpec) -> dict[str, Any]:
    """One tensor of the model metadata."""
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.free_shape}


def config(manifest: Manifest) -> dict[str, Any]:
    """Triton's ModelConfig: every version is served, and shapes name the batch themselves, so `max_batch_size` is 0."""
    return {
        "name": manifest.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"all": {}},
        "max_batch_size": 0,
        "input": [configured(spec) for spec in manifest.inputs],
        "output": [configured(spec) for spec in manifest.outputs],
        "default_model_filename": manifest.graph.path,
        "parameters": {"precision": {"string_value": manifest.serve}, "task": {"string_value": manifest.task}},
    }


def configured(spec: TensorSpec) -> dict[str, Any]:
    """One tensor of the ModelConfig, whose word for BYTES is STRING."""
    kind = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": spec.free_shape}


def json_length(headers: Mapping[str, str], size: int) -> int:
    """How many bytes of a body of `size` are JSON: all, unless the header says otherwise."""
    text = headers.get(JSON_LENGTH)
    if text is None:
        return size or 1  # an empty body is JSON that is missing, not a raw tensor
    if not text.isdecimal() or len(text) > 18 or int(text) > size:  # python reads no number of 5,000 digits
        raise InvalidInputError(f"Inference-Header-Content-Length is {text!r}, but the body has {size} bytes.")
    return int(text)


def decode_inputs(request: InferBody, tail: Tail, manifest: Manifest, way: Signature) -> dict[str, Array]:
    """Each input's array by its name; those in binary form take their bytes from the tail in turn."""
    tensors: dict[str, Array] = {}
    for given in request.inputs:
        if given.name in tensors:
            raise InvalidInputError(f"Input {given.name!r} is there twice; {manifest.name} takes it once.")
        wanted = way.input(given.name)
        if wanted is None:
            known = " or ".join(str(way.names) for way in signatures(manifest))
            raise InvalidInputError(f"{given.name!r} is not an input of {manifest.name}; its inputs are {known}.")
        tensors[given.name] = decode_input(given, wanted, tail, nullable=request.nullable)
    return tensors


def decode_input(given: InputBody, wanted: Input, tail: Tail, *, nullable: bool) -> Array:
    """One input's array, of a datatype that the model takes and the shape that the request declares."""
    spec, parameters, data = wanted.spec, given.parameters or {}, bytes(given.data)
    if given.datatype not in wanted.datatypes:
        raise InvalidInputError(f"Input {given.name!r} is {given.datatype!r}, expected {spec.datatype}.")
    datatype = cast("Datatype", given.datatype)
    check_shape(spec.name, given.shape)
    check_not_shared(parameters, f"Input {given.name!r}")
    size, data = parameters.get("binary_data_size"), b"" if data == b"null" else data
    if "s3_uri" in parameters:
        if size is not None or data:
            raise InvalidInputError(f"Input {given.name!r} takes either an s3_uri, or data, or a binary_data_size.")
        fetched = tail.fetch(parameters["s3_uri"], spec.name, datatype, given.shape)
        return v2_binary.decode(fetched, spec.name, datatype, given.shape, opaque=wanted.opaque)
    if size is None:
        missing_is_nan = wanted.nullable or (nullable and datatype in v2_tensors.LARGEST)
        return v2_tensors.decode(data, spec.name, datatype, given.shape, nullable=missing_is_nan)
    if type(size) is not int or size < 0 or data:
        raise InvalidInputError(f"Input {given.name!r} takes either data or a binary_data_size of 0 or more, not both.")
    return v2_binary.decode(tail.take(size, spec.name), spec.name, datatype, given.shape, opaque=wanted.opaque)


def check_not_shared(parameters: Mapping[str, Any], what: str) -> None:
    """Refuse memory that client and server would share: they are not on one machine."""
    if SHARED in parameters:
        raise UnsupportedError(f"{what} is in shared memory, which is not served; send its data in binary form.")


def check_shape(name: str, shape: Sequence[int]) -> None:
    """Refuse a shape that no body can fill, before anybody multiplies, nests or allocates by it.

    A zero does not help: numpy and onnxruntime multiply the other dimensions of an empty tensor all the same.
    """
    if len(shape) > MOST_DIMENSIONS:
        raise InvalidInputError(f"Input {name!r} has {len(shape)} dimensions; at most {MOST_DIMENSIONS} are served.")
    if prod(size or 1 for size in shape) > MOST_VALUES:
        raise TooLargeError(f"Input {name!r} declares the shape {shorter(shape)}, more than {MOST_VALUES:,} values.")


def shorter(shape: Sequence[int]) -> str:
    """A shape for a sentence, with its numbers cut where they are absurd."""
    return f"[{', '.join(str(size) if size <= MOST_VALUES else f'1e{len(str(size)) - 1}' for size in shape)}]"


def raw_request(body: memoryview, manifest: Manifest) -> InferRequest:
    """A body that is nothing but the model's one input, as a batch of one; all outputs come back in binary form."""
    way = next((way for way in signatures(manifest) if len(way.inputs) == 1), None)
    if way is None:
        names = [spec.name for spec in manifest.inputs]
        raise InvalidInputError(f"A raw binary request brings one input, but {manifest.name} takes {names}.")
    spec, opaque = way.inputs[0].spec, way.inputs[0].opaque
    data = memoryview(v2_binary.prefixed(bytes(body))) if spec.datatype == "BYTES" else body
    tensor = v2_binary.decode(data, spec.name, spec.datatype, raw_shape(spec, len(body)), opaque=opaque)
    return InferRequest(None, {spec.name: tensor}, [Wanted(output.name, binary=True) for output in way.outputs])


def raw_shape(spec: TensorSpec, size: int) -> list[int]:
    """The shape of a raw tensor of `size` bytes: one free dimension follows from the size; of two, the first is 1."""
    shape = spec.free_shape
    if spec.datatype == "BYTES":
        return [max(1, dimension) for dimension in shape]
    if shape.count(-1) == 2:
        shape[shape.index(-1)] = 1
    if shape.count(-1) > 1:
        raise InvalidInputError(f"Input {spec.name!r} is {list(spec.shape)}: a raw request cannot tell its shape.")
    known = prod(dimension for dimension in shape if dimension != -1) * NUMPY_DTYPES[spec.datatype].itemsize
    return [size // max(1, known) if dimension == -1 else dimension for dimension in shape]


def wanted_outputs(request: InferBody, manifest: Manifest, way: Signature) -> list[Wanted]:
    """The outputs to answer with: those asked for, else those that belong to what was sent."""
    parameters = request.parameters or {}
    stateful = next((name for name in STATEFUL if parameters.get(name)), None)
    if stateful is not None:
        raise UnsupportedError(f"The parameter {stateful!r} is not served: models here keep no state between requests.")
    binary = flag(parameters, "binary_data_output", "The request", default=False)
    asked = request.outputs or [OutputBody(spec.name) for spec in way.outputs]
    known = way.answers
    unknown = [output.name for output in asked if output.name not in known]
    if unknown:
        raise InvalidInputError(f"{unknown[0]!r} is not an output of {manifest.name}; its outputs are {known}.")
    return [wanted_output(output, binary=binary) for output in asked]


def wanted_output(output: OutputBody, *, binary: bool) -> Wanted:
    """One output's own parameters, over those of the request."""
    parameters, what = output.parameters or {}, f"Output {output.name!r}"
    check_not_shared(parameters, what)
    classes = parameters.get("classification") or None
    if classes is not None and (type(classes) is not int or classes < 1):
        raise InvalidInputError(f"{what}: classification is {classes!r}, expected 1 or more classes.")
    return Wanted(output.name, flag(parameters, "binary_data", what, default=binary), classes)


def encode_output(
    wanted: Wanted, spec: TensorSpec, array: Array, labels: Sequence[str], tails: list[bytes]
) -> dict[str, Any]:
    """One output of the answer; its bytes go to `tails` when it is wanted in binary form."""
    datatype = spec.datatype
    if wanted.classes is not None:
        array, datatype = classify(numbers(array, datatype), wanted, labels), "BYTES"
    encoded: dict[str, Any] = {"name": spec.name, "datatype": datatype, "shape": list(array.shape)}
    if wanted.binary:
        tails.append(v2_binary.encode(array))
        encoded["parameters"] = {"binary_data_size": len(tails[-1])}
    else:
        encoded["data"] = v2_tensors.encode(array, spec.name, datatype)
    return encoded


def raw(wanted: Wanted, results: Mapping[str, Array], labels: Sequence[str]) -> bytes:
    """An output's bytes in binary form."""
    array = results[wanted.name]
    return v2_binary.encode(array if wanted.classes is None else classify(array, wanted, labels))


def numbers(array: Array, datatype: Datatype) -> Array:
    """An output's values; BF16 comes as bits, which are the upper half of a float's."""
    return (array.astype(np.uint32) << 16).view(np.float32) if datatype == "BF16" else array


def classify(array: Array, wanted: Wanted, labels: Sequence[str]) -> Array:
    """The classification extension: `value:index:label` of the highest values of the last dimension, best first."""
    if array.ndim == 0 or array.dtype.kind not in "fiu":
        shape = list(array.shape)
        raise InvalidInputError(f"Output {wanted.name!r} has no classes: it is {array.dtype} of shape {shape}.")
    best = np.argsort(-array.astype(np.float64), axis=-1, kind="stable")[..., : wanted.classes]
    named = len(labels) == array.shape[-1]
    values = np.take_along_axis(array, best, axis=-1)
    texts = [
        f"{value}:{index}" + (f":{labels[index]}" if named else "")
        for value, index in zip(values.ravel().tolist(), best.ravel().tolist(), strict=True)
    ]
    return np.array(texts, object).reshape(best.shape)
