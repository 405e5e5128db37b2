"""Check that the models of a server answer correctly, in every form of the protocol. Each request is a prediction.

If the store is known, the requests are golden requests, whose answers were recorded when the version was published;
else they are made-up numbers for the first model that takes some.
"""

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

import msgspec
import numpy as np

from pilotlight.api import v2_binary
from pilotlight.api.compression import MIN_COMPRESSIBLE_BYTES
from pilotlight.api.v2 import JSON_LENGTH_HEADER
from pilotlight.client.client import Client, ModelMetadata, RawResponse, Tensor
from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import Datatype, Manifest
from pilotlight.contracts.names import CHAMPION
from pilotlight.doctor.finding import CheckFailedError, HealthCheck, NotCheckedError, join_names
from pilotlight.doctor.server import format_reply
from pilotlight.errors import ModelRefusedError, NotFoundError, PilotlightError
from pilotlight.registry.registry import Registry, version_path
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array
from pilotlight.runtime.golden import GoldenDocument, GoldenExchange, compare_output, to_arrays

VERSION_HEADER = "x-pilotlight-version"
WARM_CALLS = 20
MAX_WARM_MS = 1000.0  # of the median; a warm function adds some ms to the graph's own time
FLOAT_DATATYPES = ("FP32", "FP64")
SAMPLE_VALUES = (0.5, -1.25, 3.0, -0.1)  # each has bytes beyond ASCII, which break where bodies are taken for text
MAX_ASCII = 0x7F
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class SampleRequest:
    """An inference with a known answer: model, inputs, their datatypes, and whether they have a batch dimension."""

    model: str
    inputs: Arrays
    datatypes: Mapping[str, Datatype]
    batched: bool

    def repeat_batch(self, times: int) -> "SampleRequest":
        """Return the request for so many times as many examples."""
        inputs = {name: np.concatenate([array] * times) for name, array in self.inputs.items()}
        return SampleRequest(self.model, inputs, self.datatypes, self.batched)

    def to_json(self, *, binary_answer: bool = False) -> bytes:
        """Encode the body as JSON."""
        inputs = [
            Tensor(name, self.datatypes[name], array.shape, array.ravel().tolist())
            for name, array in self.inputs.items()
        ]
        return msgspec.json.encode({"inputs": inputs, "parameters": {"binary_data_output": binary_answer}})

    def to_binary(self) -> tuple[bytes, dict[str, str]]:
        """Encode the body with binary tensors, and return the header with the length of its JSON."""
        tails = {name: v2_binary.encode_binary_tensor(array) for name, array in self.inputs.items()}
        inputs = [
            {
                "name": name,
                "datatype": self.datatypes[name],
                "shape": array.shape,
                "parameters": {"binary_data_size": len(tails[name])},
            }
            for name, array in self.inputs.items()
        ]
        head = msgspec.json.encode({"inputs": inputs, "parameters": {"binary_data_output": True}})
        return b"".join((head, *tails.values())), {JSON_LENGTH_HEADER: str(len(head))}


class InferenceChecks:
    """Checks of the models of a server, with the registry of its store, if that is known."""

    def __init__(self, client: Client, registry: Registry | None = None) -> None:
        self._client = client
        self._registry = registry

    def list_checks(self) -> tuple[HealthCheck, ...]:
        """List all checks. The first one opens the model that the others call, if it is not open yet."""
        return (
            HealthCheck("latency", self.check_latency),
            HealthCheck("binary tensors", self.check_binary_tensors),
            HealthCheck("gzip to it", self.check_gzip_request),
            HealthCheck("gzip from it", self.check_gzip_response),
            HealthCheck("aliases over HTTP", self.check_alias_over_http),
            HealthCheck("cost", self.check_cost_headers),
            HealthCheck("golden requests", self.check_golden_requests),
        )

    def check_latency(self) -> str:
        """Check how long a caller waits, for the first call and for the next ones."""
        body = self._sample_request.to_json()
        first, *warm = (self._send_infer_request(body) for _ in range(1 + WARM_CALLS))
        kind = "cold" if first.headers.get("x-pilotlight-cold") == "true" else "warm already"
        warm_ms = 1000 * median(reply.seconds for reply in warm)
        summary = (
            f"{1000 * first.seconds:.0f} ms the first time ({kind}), then {warm_ms:.1f} ms, median of {WARM_CALLS}"
        )
        if warm_ms > MAX_WARM_MS:
            raise CheckFailedError(
                f"{summary}; more than {MAX_WARM_MS:g} ms: give the function more memory (ModelMemory), or look at "
                "what "
                "`pilotlight fit` says of the model."
            )
        return f"{summary}."

    def check_binary_tensors(self) -> str:
        """Check that tensors survive as bytes both ways, which takes BinaryMediaTypes on AWS."""
        body, header = self._sample_request.to_binary()
        if max(body) <= MAX_ASCII:
            raise NotCheckedError(
                f"What {self._sample_request.model} takes has no byte beyond ASCII, which alone would tell."
            )
        self._check_same_outputs(
            self._send_infer_request(body, header),
            "Binary tensors",
            "BinaryMediaTypes of template.yaml are not in force",
        )
        return f"{len(body)} bytes there, and the answer back, are the same as in JSON."

    def check_gzip_request(self) -> str:
        """Check that a compressed request is understood."""
        body = self._sample_request.to_json()
        packed = gzip.compress(body)
        reply = self._send_infer_request(packed, {"content-encoding": "gzip"})
        self._check_same_outputs(reply, "A request in gzip", "see BinaryMediaTypes of template.yaml")
        return f"{len(body)} bytes, sent as {len(packed)}, are answered as they are."

    def check_gzip_response(self) -> str:
        """Check that an answer is compressed on request, and can be read."""
        body, plain = self._find_compressible_answer()
        packed = self._send_infer_request(body, {"accept-encoding": "gzip"})
        if packed.headers.get("content-encoding") != "gzip":
            raise CheckFailedError("An answer is not compressed though gzip was asked for; does a proxy unpack it?")
        if packed.content != plain.content:
            raise CheckFailedError(
                "An answer in gzip is not what it is without; see BinaryMediaTypes of template.yaml."
            )
        return f"An answer of {len(plain.content)} bytes comes compressed."

    def _find_compressible_answer(self) -> tuple[bytes, RawResponse]:
        """Find a body whose answer is worth compressing, by more and more rows; return both."""
        question = self._sample_request
        for times in (1, 4, 16, 64, 256) if question.batched else (1,):
            body = question.repeat_batch(times).to_json()
            plain = self._send_infer_request(body, {"accept-encoding": "identity"})
            if len(plain.content) >= MIN_COMPRESSIBLE_BYTES:
                return body, plain
        raise NotCheckedError(
            f"{question.model} answers with less than the {MIN_COMPRESSIBLE_BYTES} bytes that are worth it."
        )

    def check_alias_over_http(self) -> str:
        """Check that an answer names its version, and that a caller can pin one."""
        reply = self._send_infer_request(self._sample_request.to_json(), path_suffix=f"/versions/{CHAMPION}")
        told_version, named = reply.headers.get(VERSION_HEADER), decode_json_part(reply).get("model_version")
        if named is None or told_version != named:
            raise CheckFailedError(
                f"Header {VERSION_HEADER} says {told_version}, the body {named}; is the header cut on the way?"
            )
        pinned = self._send_infer_request(
            self._sample_request.to_json(), {VERSION_HEADER: named}, path_suffix="/versions/no-such-alias"
        )
        if pinned.headers.get(VERSION_HEADER) != named:
            raise CheckFailedError(
                f"Pinned to {named}, version {pinned.headers.get(VERSION_HEADER)} answers; does {VERSION_HEADER} "
                "arrive?"
            )
        if self._registry is not None:
            self._check_version_served(self._registry, int(named))
        return f"{self._sample_request.model}@{CHAMPION} is answered by version {named}, and can be pinned to it."

    def check_cost_headers(self) -> str:
        """Check that an answer has its time and its cost."""
        headers = self._send_infer_request(self._sample_request.to_json()).headers
        usd, timing = headers.get("x-pilotlight-usd", ""), headers.get("server-timing", "")
        try:
            if float(usd) > 0 and "total;dur=" in timing:
                return f"A call is billed ${float(usd):.9f}, {headers.get('x-pilotlight-billed-ms')} ms."
        except ValueError:  # raised below, with what was there instead
            pass
        raise CheckFailedError(
            f"Headers say x-pilotlight-usd: {usd!r}, server-timing: {timing!r}; are they cut on the way?"
        )

    def check_golden_requests(self) -> str:
        """Check that every champion answers its golden requests through the URL as recorded at its publication."""
        if self._registry is None:
            raise NotCheckedError("Their records lie in the store; give it as --store.")
        wrong, asked, models = list[str](), 0, 0
        for manifest, recorded in self._read_golden_requests(self._registry):
            models += 1
            for number, exchange in enumerate(recorded.exchanges, 1):
                asked += 1
                try:
                    self._replay_exchange(manifest, number, exchange, recorded.tolerance)
                except PilotlightError as exc:
                    wrong.append(f"{manifest.name}:{manifest.version}: {str(exc).rstrip('.')}")
        if wrong:
            raise CheckFailedError(
                f"{len(wrong)} of {asked} golden requests fail: {join_names(wrong)}; `pilotlight rollback` it."
            )
        if not models:
            raise NotCheckedError("No champion has golden requests.")
        return f"{asked} requests of {models} champions are answered as recorded."

    @cached_property
    def _sample_request(self) -> SampleRequest:
        """A golden request of the first champion that has one, else made-up numbers."""
        if self._registry is not None:
            for manifest, recorded in self._read_golden_requests(self._registry):
                return build_request_from_golden(manifest, recorded.exchanges[0])
        for name in self._client.list_models():
            request = build_synthetic_request(self._client.get_metadata(name))
            if request is not None:
                return request
        raise NotCheckedError("It has no model that takes numbers; give --store, or publish one.")

    @cached_property
    def _expected_outputs(self) -> Arrays:
        """The outputs of the sample request in JSON."""
        return decode_outputs(self._send_infer_request(self._sample_request.to_json()))

    def _read_golden_requests(self, registry: Registry) -> Iterator[tuple[Manifest, GoldenDocument]]:
        """Yield the champions that have golden requests, with these; language models have prompts in their place."""
        for name in registry.list_models():
            try:
                manifest = registry.load_manifest(name, registry.load_alias(name, CHAMPION).version)
            except NotFoundError:
                continue  # the checks of the store report it
            if manifest.golden is not None and manifest.decoder is None:
                stored = registry.store.get(version_path(name, manifest.version, manifest.golden))
                yield manifest, decode_document(stored.data, GoldenDocument, manifest.golden)

    def _replay_exchange(self, manifest: Manifest, number: int, exchange: GoldenExchange, tolerance: float) -> None:
        expected = to_arrays(exchange.response.outputs)
        requested_outputs = [{"name": name} for name in expected]
        body = msgspec.json.encode(
            {"inputs": [tensor.expand() for tensor in exchange.request.inputs], "outputs": requested_outputs}
        )
        actual = decode_outputs(
            self._send_infer_request(body, model=manifest.name, path_suffix=f"/versions/{manifest.version}")
        )
        for name, array in expected.items():
            compare_output(number, name, array, actual.get(name), tolerance)

    def _check_version_served(self, registry: Registry, version: int) -> None:
        document = registry.load_alias(self._sample_request.model, CHAMPION)
        allowed = [document.version, *(share.version for share in document.shares)]
        if version not in allowed:
            raise CheckFailedError(
                f"Version {version} answers, and {self._sample_request.model}@{CHAMPION} of {registry.store.url} is "
                f"{document.version}; does the server read another store?"
            )

    def _send_infer_request(
        self, body: bytes, headers: Mapping[str, str] | None = None, *, model: str | None = None, path_suffix: str = ""
    ) -> RawResponse:
        """Send an infer request; raise `ModelRefusedError` for any status but 200."""
        model = model or self._sample_request.model
        reply = self._client.send_request("POST", f"/v2/models/{model}{path_suffix}/infer", body, headers)
        if reply.status != 200:
            raise ModelRefusedError(
                f"{model} answers an infer request with {format_reply(reply)}; see the function's log."
            )
        return reply

    def _check_same_outputs(self, reply: RawResponse, what: str, advice: str) -> None:
        """Fail if the outputs differ from those of the same request in JSON."""
        for name, array in decode_outputs(reply).items():
            if not is_same_output(array, self._expected_outputs.get(name)):
                raise CheckFailedError(f"{what} are answered otherwise than JSON, in {name!r}; {advice}.")


def build_request_from_golden(manifest: Manifest, exchange: GoldenExchange) -> SampleRequest:
    """Build a sample request from a golden one."""
    inputs = to_arrays(exchange.request.inputs)
    datatypes = {tensor.name: tensor.datatype for tensor in exchange.request.inputs}
    batched = all(spec.shape and isinstance(spec.shape[0], str) for spec in manifest.inputs)
    return SampleRequest(manifest.name, inputs, datatypes, batched)


def build_synthetic_request(model: ModelMetadata) -> SampleRequest | None:
    """Build a request of made-up numbers; return None for a model of other than floating-point numbers."""
    if not model.inputs or any(spec.datatype not in FLOAT_DATATYPES for spec in model.inputs):
        return None
    shapes = {spec.name: [max(1, size) for size in spec.shape] for spec in model.inputs}
    datatypes: dict[str, Datatype] = {spec.name: "FP32" if spec.datatype == "FP32" else "FP64" for spec in model.inputs}
    inputs = {
        name: np.resize(np.array(SAMPLE_VALUES, NUMPY_DTYPES[datatypes[name]]), shape) for name, shape in shapes.items()
    }
    return SampleRequest(model.name, inputs, datatypes, all(spec.shape[:1] == [-1] for spec in model.inputs))


def decode_outputs(reply: RawResponse) -> dict[str, Array]:
    """Decode the outputs of an answer in JSON or binary form; raise `ModelRefusedError` if it is not one of V2."""
    head, tail = decode_json_part(reply), memoryview(reply.content)[get_json_length(reply) :]
    tensors: dict[str, Array] = {}
    try:
        for output in head["outputs"]:
            name, datatype, shape = output["name"], output["datatype"], output["shape"]
            if "data" in output:
                tensors[name] = np.array(output["data"], NUMPY_DTYPES[datatype]).reshape(shape)
                continue
            size = output["parameters"]["binary_data_size"]
            tensors[name] = v2_binary.decode_binary_tensor(tail[:size], name, datatype, shape)
            tail = tail[size:]
    except (KeyError, TypeError, ValueError, PilotlightError) as exc:
        raise ModelRefusedError(f"The answer is not one of V2: {exc!r}.") from exc
    return tensors


def decode_json_part(reply: RawResponse) -> dict[str, Any]:
    """Decode the JSON of an answer."""
    try:
        return msgspec.json.decode(reply.content[: get_json_length(reply)], type=dict[str, Any])
    except msgspec.MsgspecError as exc:
        raise ModelRefusedError(f"The answer is not one of V2: {exc}.") from exc


def get_json_length(reply: RawResponse) -> int:
    """Return how many bytes of an answer are JSON."""
    length = reply.headers.get(JSON_LENGTH_HEADER, "")
    return int(length) if length.isdecimal() else len(reply.content)


def is_same_output(actual: Array, expected: Array | None) -> bool:
    """Return whether two outputs are the same but for rounding."""
    if expected is None or actual.shape != expected.shape:
        return False
    if actual.dtype == object:
        return np.array_equal(actual, expected)
    return np.allclose(actual.astype(np.float64), expected.astype(np.float64), rtol=1e-4, atol=1e-5, equal_nan=True)
