"""The Open Inference Protocol (V2): how infer requests are decoded and answers encoded.

Requests and answers are JSON, with tensors in it or in binary form after it. This module depends on manifests and
arrays, not on stores or sessions. Sources: kserve/open-inference-protocol, docs/protocol of
triton-inference-server/server.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, cast

import msgspec
import numpy as np
from msgspec import Struct

from pilotlight.api import compression, v2_binary, v2_tensors
from pilotlight.api.http import JSON, Response, count_sent_bytes, is_sendable
from pilotlight.api.large_tensors import StoredOutputs, UploadedTensors
from pilotlight.api.request_limits import (
    JSON_COST,
    UNLIMITED,
    WEIGHED_BYTES,
    RequestLimits,
    pause_garbage_collection,
)
from pilotlight.api.text_encoding import convert_to_utf8, find_charset
from pilotlight.api.v2_json import InferBody, InputBody, OutputBody, decode_infer_body, parse_flag
from pilotlight.contracts.manifest import Datatype, Manifest, TensorSpec
from pilotlight.errors import InvalidInputError, TooLargeError, UnsupportedError
from pilotlight.processing import file_bytes
from pilotlight.processing.input_validation import check_row_count
from pilotlight.processing.signature import CallSignature, SignatureInput, choose_signature, list_signatures
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array

# Parameters of protocol extensions that are not served.
STATEFUL_PARAMETERS = ("sequence_id", "sequence_start", "sequence_end")
SHARED_MEMORY_PARAMETER = "shared_memory_region"
BINARY_TYPE = "application/octet-stream"
MAX_DIMENSIONS = 32  # of a tensor; numpy allows 64
MAX_VALUES = 128_000_000  # of a tensor
JSON_LENGTH_HEADER = "inference-header-content-length"  # the number of bytes of the body that are JSON; tensors follow


class RequestedOutput(Struct, frozen=True):
    """An output to return: in binary form or as JSON, as it is or as the best `classes` of its last dimension."""

    name: str
    binary: bool = False
    classes: int | None = None


class InferenceRequest(Struct, frozen=True):
    """A decoded infer request: arrays by input name, and the requested outputs in order."""

    id: str | None
    tensors: Mapping[str, Array]
    outputs: Sequence[RequestedOutput]
    parameters: Mapping[str, Any] = {}  # of the request; a finish takes its own, such as a threshold

    @property
    def row_count(self) -> int:
        """The length of the first tensor's first dimension, which depends on nothing but the request."""
        shape = next(iter(self.tensors.values())).shape if self.tensors else ()
        return int(shape[0]) if shape else 1


class BinaryPayload:
    """The tensors that are not in the JSON: those after it, which are taken in order, and uploaded ones."""

    def __init__(
        self,
        data: memoryview,
        uploads: UploadedTensors | None = None,
        limits: RequestLimits = UNLIMITED,
        decode_seconds: float = 0.0,
    ) -> None:
        """Create a payload; `decode_seconds` is what decoding the JSON probably takes."""
        self.limits = limits
        self.decode_seconds = decode_seconds
        self._data = data
        self._uploads = uploads
        self._fetched_bytes = 0  # bytes

    def take_bytes(self, size: int, name: str) -> memoryview:
        """Take the next `size` bytes, which belong to the input `name`."""
        if size > len(self._data):
            raise InvalidInputError(f"Input {name!r} says {size} binary bytes, but {len(self._data)} are left.")
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def fetch_upload(self, uri: object, name: str, datatype: Datatype, shape: Sequence[int]) -> memoryview:
        """Fetch the bytes at an address, within the limit for all inputs of the request."""
        if self._uploads is None:
            raise UnsupportedError(f"Input {name!r} is an s3_uri, which is not read here.")
        data = self._uploads.read_tensor(uri, name, datatype, shape, self._uploads.budget_bytes - self._fetched_bytes)
        self._fetched_bytes += len(data)
        return data

    def refuse_leftover(self) -> None:
        """Raise `InvalidInputError` for bytes that belong to no input."""
        if len(self._data):
            raise InvalidInputError(f"{len(self._data)} bytes are left over after the inputs' binary_data_size.")


def decode_infer_request(
    body: bytes,
    headers: Mapping[str, str],
    manifest: Manifest,
    uploads: UploadedTensors | None = None,
    limits: RequestLimits = UNLIMITED,
) -> InferenceRequest:
    """Decode an infer request for the model of `manifest`; raise `InvalidInputError` where it does not fit.

    Tensors that are given by `s3_uri` are read from the `uploads`. What decodes to more than the `limits` raises
    `TooLargeError` before it is decoded.
    """
    body = decompress_within_limits(body, headers, limits)
    if JSON_LENGTH_HEADER not in headers and find_charset(headers.get("content-type", "")):
        body = convert_to_utf8(body, headers["content-type"])
    length = parse_json_length(headers, len(body))
    if length == 0:
        return decode_raw_request(memoryview(body), manifest)
    if len(body) <= WEIGHED_BYTES:
        return decode_parts(memoryview(body), length, manifest, BinaryPayload(memoryview(body)[length:], uploads))
    decode_seconds = limits.check_text(body, JSON_COST, length)
    payload = BinaryPayload(memoryview(body)[length:], uploads, limits, decode_seconds)
    with pause_garbage_collection():
        return decode_parts(memoryview(body), length, manifest, payload)


def may_be_file(headers: Mapping[str, str], body: bytes) -> bool:
    """Return whether a body may be a file or a form: no header says that it is JSON, and it does not begin as JSON."""
    kind = headers.get("content-type", "").lower()
    if kind.startswith(JSON) or JSON_LENGTH_HEADER in headers or body.startswith(b"{"):
        return False
    return bool(kind or body)


def decode_parts(body: memoryview, length: int, manifest: Manifest, payload: BinaryPayload) -> InferenceRequest:
    """Decode the JSON, which is the first `length` bytes of the body, and with it the tensors in the payload."""
    request = decode_infer_body(body[:length])
    if payload.limits is not UNLIMITED:
        rows = max([given.shape[0] for given in request.inputs if given.shape], default=1)
        payload.limits.check_rows(manifest, rows, payload.decode_seconds)
        elements = [prod(given.shape) for given in request.inputs if given.datatype == "BYTES"]
        check_row_count(manifest.preprocess, max(elements, default=0))
    signature = choose_signature(manifest, {given.name: given.datatype for given in request.inputs})
    tensors = decode_infer_inputs(request, payload, manifest, signature)
    payload.refuse_leftover()
    requested = parse_requested_outputs(request, manifest, signature)
    return InferenceRequest(request.id, tensors, requested, request.parameters or {})


def decompress_within_limits(body: bytes, headers: Mapping[str, str], limits: RequestLimits) -> bytes:
    """Decompress a body within the memory that is free; a body that grows beyond what can be sent has less time."""
    encoding = headers.get("content-encoding", "")
    if not encoding:
        return body
    body = compression.decompress_body(body, encoding, limits.get_body_bytes(compression.MAX_DECOMPRESSED_BYTES))
    limits.note_decompressed(len(body))
    return body


def encode_infer_response(
    manifest: Manifest,
    request: InferenceRequest,
    results: Mapping[str, Array],
    accept_encoding: str = "",
    stored_outputs: StoredOutputs | None = None,
) -> Response:
    """Encode the answer: the model's version, the id of the request if it has one, and the outputs in their order.

    Outputs that are too large for a response go to the `stored_outputs`; if that is None, there is no limit.
    """
    specs = get_output_specs(manifest)
    tails: list[bytes] = []
    answer: dict[str, Any] = {"model_name": manifest.name, "model_version": str(manifest.version)}
    if request.id is not None:
        answer["id"] = request.id
    answer["outputs"] = [
        encode_infer_output(wanted, specs[wanted.name], results[wanted.name], manifest.labels, tails)
        for wanted in request.outputs
    ]
    text = msgspec.json.encode(answer)
    body, encoding = compression.compress_body(b"".join((text, *tails)), accept_encoding)
    binary = bool(tails) or encoding is not None
    if stored_outputs is not None and not is_sendable(body, binary=binary):
        raw_outputs = encode_raw_outputs(manifest, request, results)
        parameters = stored_outputs.store_outputs(raw_outputs, count_sent_bytes(body, binary=binary))
        answer["outputs"] = [build_stored_output(output, parameters[output["name"]]) for output in answer["outputs"]]
        tails, text = [], msgspec.json.encode(answer)
        body, encoding = compression.compress_body(text, accept_encoding)
    headers = {"content-type": BINARY_TYPE, JSON_LENGTH_HEADER: str(len(text))} if tails else {"content-type": JSON}
    if encoding is not None:
        headers["content-encoding"] = encoding
    return Response(200, body, headers, binary=bool(tails) or encoding is not None)


def build_stored_output(output: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Build an output of the answer whose data are in the store, where `parameters` locate them."""
    return {"name": output["name"], "datatype": output["datatype"], "shape": output["shape"], "parameters": parameters}


def get_output_specs(manifest: Manifest) -> Mapping[str, TensorSpec]:
    """Return all outputs that may be requested, by name."""
    first = list_signatures(manifest)[0]
    return {spec.name: spec for spec in (*first.outputs, *first.extra_outputs)}


def parse_json_length(headers: Mapping[str, str], size: int) -> int:
    """Return how many bytes of a body of `size` bytes are JSON: all, unless a header limits them."""
    text = headers.get(JSON_LENGTH_HEADER)
    if text is None:
        return size or 1  # an empty body is missing JSON, not a raw tensor
    if not text.isdecimal() or len(text) > 18 or int(text) > size:  # python does not parse a number of 5,000 digits
        raise InvalidInputError(f"Inference-Header-Content-Length is {text!r}, but the body has {size} bytes.")
    return int(text)


def decode_infer_inputs(
    request: InferBody, payload: BinaryPayload, manifest: Manifest, signature: CallSignature
) -> dict[str, Array]:
    """Decode each input, by name; those in binary form take their bytes from the payload in order."""
    tensors: dict[str, Array] = {}
    for input_body in request.inputs:
        if input_body.name in tensors:
            raise InvalidInputError(f"Input {input_body.name!r} is there twice; {manifest.name} takes it once.")
        model_input = signature.find_input(input_body.name)
        if model_input is None:
            expected = " or ".join(str(way.input_names) for way in list_signatures(manifest))
            raise InvalidInputError(
                f"{input_body.name!r} is not an input of {manifest.name}; its inputs are {expected}."
            )
        tensors[input_body.name] = decode_infer_input(input_body, model_input, payload, nullable=request.nullable)
    return tensors


def decode_infer_input(
    input_body: InputBody, model_input: SignatureInput, payload: BinaryPayload, *, nullable: bool
) -> Array:
    """Decode one input of a datatype that the model accepts, in the shape that the request declares."""
    spec, parameters, data = model_input.spec, input_body.parameters or {}, bytes(input_body.data)
    if input_body.datatype not in model_input.datatypes:
        raise InvalidInputError(f"Input {input_body.name!r} is {input_body.datatype!r}, expected {spec.datatype}.")
    datatype = cast("Datatype", input_body.datatype)
    check_declared_shape(spec.name, input_body.shape)
    refuse_shared_memory(parameters, f"Input {input_body.name!r}")
    size, data = parameters.get("binary_data_size"), b"" if data == b"null" else data
    if "s3_uri" in parameters:
        if size is not None or data:
            raise InvalidInputError(
                f"Input {input_body.name!r} takes either an s3_uri, or data, or a binary_data_size."
            )
        tensor_bytes = payload.fetch_upload(parameters["s3_uri"], spec.name, datatype, input_body.shape)
        return decode_binary_input(tensor_bytes, model_input, datatype, input_body.shape, payload.limits)
    if size is None:
        missing_is_nan = model_input.nullable or (nullable and datatype in v2_tensors.MAX_FLOATS)
        tensor = v2_tensors.decode_json_tensor(data, spec.name, datatype, input_body.shape, nullable=missing_is_nan)
        is_base64 = parameters.get("content_type") == "base64" and datatype == "BYTES" and not model_input.opaque
        return decode_base64_texts(tensor, spec.name) if is_base64 else tensor
    if type(size) is not int or size < 0 or data:
        raise InvalidInputError(
            f"Input {input_body.name!r} takes either data or a binary_data_size of 0 or more, not both."
        )
    tensor_bytes = payload.take_bytes(size, spec.name)
    return decode_binary_input(tensor_bytes, model_input, datatype, input_body.shape, payload.limits)


def decode_base64_texts(tensor: Array, name: str) -> Array:
    """Decode texts that came in base64, which MLServer's clients say by `content_type`."""
    texts = np.empty(tensor.size, object)
    for place, element in enumerate(tensor.ravel()):
        try:
            texts[place] = None if element is None else file_bytes.decode_base64(element).decode()
        except (InvalidInputError, UnicodeDecodeError) as exc:
            raise InvalidInputError(f"Input {name!r}: element {place} is no text in base64: {exc}.") from exc
    return texts.reshape(tensor.shape)


def decode_binary_input(
    data: memoryview, model_input: SignatureInput, datatype: Datatype, shape: Sequence[int], limits: RequestLimits
) -> Array:
    """Decode an input in binary form; only the elements of BYTES take more memory than their bytes."""
    name = model_input.spec.name
    if datatype == "BYTES":
        limits.check_elements(name, min(prod(shape), len(data) // v2_binary.LENGTH_PREFIX.size), len(data))
    return v2_binary.decode_binary_tensor(data, name, datatype, shape, opaque=model_input.opaque)


def refuse_shared_memory(parameters: Mapping[str, Any], what: str) -> None:
    """Raise `UnsupportedError` for shared memory, since client and server are not on one machine."""
    if SHARED_MEMORY_PARAMETER in parameters:
        raise UnsupportedError(f"{what} is in shared memory, which is not served; send its data in binary form.")


def check_declared_shape(name: str, shape: Sequence[int]) -> None:
    """Refuse a shape that no body can fill, before anything is multiplied, nested or allocated by it.

    A zero is counted as 1, since numpy and onnxruntime multiply the other dimensions of an empty tensor too.
    """
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidInputError(f"Input {name!r} has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are served.")
    if prod(size or 1 for size in shape) > MAX_VALUES:
        raise TooLargeError(
            f"Input {name!r} declares the shape {format_shape(shape)}, more than {MAX_VALUES:,} values."
        )


def format_shape(shape: Sequence[int]) -> str:
    """Format a shape for an error message, and shorten absurdly large numbers."""
    return f"[{', '.join(str(size) if size <= MAX_VALUES else f'1e{len(str(size)) - 1}' for size in shape)}]"


def decode_raw_request(body: memoryview, manifest: Manifest) -> InferenceRequest:
    """Decode a body that is only the model's one input, as a batch of one; all outputs are returned in binary form."""
    signature = next((way for way in list_signatures(manifest) if len(way.inputs) == 1), None)
    if signature is None:
        names = [spec.name for spec in manifest.inputs]
        raise InvalidInputError(f"A raw binary request brings one input, but {manifest.name} takes {names}.")
    spec, opaque = signature.inputs[0].spec, signature.inputs[0].opaque
    data = memoryview(v2_binary.add_length_prefix(bytes(body))) if spec.datatype == "BYTES" else body
    tensor = v2_binary.decode_binary_tensor(
        data, spec.name, spec.datatype, resolve_raw_shape(spec, len(body)), opaque=opaque
    )
    return InferenceRequest(
        None, {spec.name: tensor}, [RequestedOutput(output.name, binary=True) for output in signature.outputs]
    )


def resolve_raw_shape(spec: TensorSpec, size: int) -> list[int]:
    """Infer the shape of a raw tensor from its `size` in bytes; of two free dimensions, the first is 1."""
    shape = spec.v2_shape
    if spec.datatype == "BYTES":
        return [max(1, dimension) for dimension in shape]
    if shape.count(-1) == 2:
        shape[shape.index(-1)] = 1
    if shape.count(-1) > 1:
        raise InvalidInputError(f"Input {spec.name!r} is {list(spec.shape)}: a raw request cannot tell its shape.")
    fixed_bytes = prod(dimension for dimension in shape if dimension != -1) * NUMPY_DTYPES[spec.datatype].itemsize
    return [size // max(1, fixed_bytes) if dimension == -1 else dimension for dimension in shape]


def parse_requested_outputs(request: InferBody, manifest: Manifest, signature: CallSignature) -> list[RequestedOutput]:
    """Parse which outputs to return; by default, those of the signature that was called."""
    parameters = request.parameters or {}
    stateful = next((name for name in STATEFUL_PARAMETERS if parameters.get(name)), None)
    if stateful is not None:
        raise UnsupportedError(f"The parameter {stateful!r} is not served: models here keep no state between requests.")
    binary = parse_flag(parameters, "binary_data_output", "The request", default=False)
    requested = request.outputs or [OutputBody(spec.name) for spec in signature.outputs]
    available = signature.output_names
    unknown = [output.name for output in requested if output.name not in available]
    if unknown:
        raise InvalidInputError(f"{unknown[0]!r} is not an output of {manifest.name}; its outputs are {available}.")
    names = {output.name for output in requested}
    if len(names) < len(requested):
        twice = next(name for name in names if sum(output.name == name for output in requested) > 1)
        raise InvalidInputError(f"Output {twice!r} is requested twice; request it once.")
    return [parse_requested_output(output, binary=binary) for output in requested]


def parse_requested_output(output: OutputBody, *, binary: bool) -> RequestedOutput:
    """Parse one output's parameters, which override those of the request."""
    parameters, what = output.parameters or {}, f"Output {output.name!r}"
    refuse_shared_memory(parameters, what)
    classes = parameters.get("classification") or None
    if classes is not None and (type(classes) is not int or classes < 1):
        raise InvalidInputError(f"{what}: classification is {classes!r}, expected 1 or more classes.")
    return RequestedOutput(output.name, parse_flag(parameters, "binary_data", what, default=binary), classes)


def encode_infer_output(
    requested: RequestedOutput, spec: TensorSpec, array: Array, labels: Sequence[str], tails: list[bytes]
) -> dict[str, Any]:
    """Encode one output of the answer; append its bytes to `tails` if it is requested in binary form."""
    array, datatype = select_output_values(requested, spec, array, labels)
    encoded: dict[str, Any] = {"name": spec.name, "datatype": datatype, "shape": list(array.shape)}
    if requested.binary:
        tails.append(v2_binary.encode_binary_tensor(array))
        encoded["parameters"] = {"binary_data_size": len(tails[-1])}
    else:
        encoded["data"] = v2_tensors.encode_json_tensor(array, spec.name, datatype)
    return encoded


def encode_raw_outputs(manifest: Manifest, request: InferenceRequest, results: Mapping[str, Array]) -> dict[str, bytes]:
    """Encode all requested outputs in binary form, by name."""
    specs = get_output_specs(manifest)
    return {
        wanted.name: encode_raw_output(wanted, specs[wanted.name], results[wanted.name], manifest.labels)
        for wanted in request.outputs
    }


def encode_raw_output(requested: RequestedOutput, spec: TensorSpec, array: Array, labels: Sequence[str]) -> bytes:
    """Encode an output in binary form."""
    return v2_binary.encode_binary_tensor(select_output_values(requested, spec, array, labels)[0])


def select_output_values(
    requested: RequestedOutput, spec: TensorSpec, array: Array, labels: Sequence[str]
) -> tuple[Array, Datatype]:
    """Return the requested values of an output and their datatype: the array as it is, or its best classes as texts."""
    if requested.classes is None:
        return array, spec.datatype
    return classify_output(expand_bf16(array, spec.datatype), requested, labels), "BYTES"


def expand_bf16(array: Array, datatype: Datatype) -> Array:
    """Convert the bits of BF16, which are the upper half of a float's; return other arrays unchanged."""
    return (array.astype(np.uint32) << 16).view(np.float32) if datatype == "BF16" else array


def classify_output(array: Array, requested: RequestedOutput, labels: Sequence[str]) -> Array:
    """Return `value:index:label` of the highest values of the last dimension, best first: Triton's classification."""
    if array.ndim == 0 or array.dtype.kind not in "fiu":
        shape = list(array.shape)
        raise InvalidInputError(f"Output {requested.name!r} has no classes: it is {array.dtype} of shape {shape}.")
    best = np.argsort(-array.astype(np.float64), axis=-1, kind="stable")[..., : requested.classes]
    has_labels = len(labels) == array.shape[-1]
    values = np.take_along_axis(array, best, axis=-1)
    texts = [
        f"{value}:{index}" + (f":{labels[index]}" if has_labels else "")
        for value, index in zip(values.ravel().tolist(), best.ravel().tolist(), strict=True)
    ]
    return np.array(texts, object).reshape(best.shape)
