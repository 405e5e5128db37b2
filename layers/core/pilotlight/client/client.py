"""A typed client of a Pilotlight server: the V2 protocol over HTTP, local or deployed.

    client = Client("http://127.0.0.1:8080")
    answer = client.infer("digits", [Tensor("image", "FP32", [1, 1, 8, 8], pixels)])
    answer.get_output("logits").data

This module depends on the protocol's JSON alone, and imports neither onnxruntime nor numpy.
"""

import base64
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2
import msgspec
from msgspec import Struct

from pilotlight.client.registry import RemoteRegistry
from pilotlight.client.trainings import RemoteTrainings
from pilotlight.errors import (
    ConflictError,
    InvalidInputError,
    MethodNotAllowedError,
    NotFoundError,
    PilotlightError,
    PreconditionError,
    TooLargeError,
    UnavailableError,
    UnsupportedError,
)

TIMEOUT_S = 30.0  # the gateway itself gives up after 29 s
STREAM_TIMEOUT_S = 300.0  # after which the gateway gives up a stream that says nothing
HEADER_VALUE = re.compile(r"[!-~]([ -~\t]*[!-~])?|")  # a header's value; RFC 9110, 5.5
LOCAL_STARTS = ("http://127.0.0.1", "http://localhost", "http://[::1]")  # of URLs where `pilotlight serve` may answer
URL_FORMS = "use http://host:port or https://host/stage"
Answer = TypeVar("Answer", bound=Struct)
PredictionInput = bytes | str | Sequence[bytes] | Sequence[str] | Mapping[str, Sequence[Any]]

ERROR_BY_STATUS: dict[int, type[PilotlightError]] = {
    400: InvalidInputError,
    404: NotFoundError,
    405: MethodNotAllowedError,
    409: ConflictError,
    412: PreconditionError,
    413: TooLargeError,
    501: UnsupportedError,
}


class Tensor(Struct, frozen=True):
    """A tensor in JSON form: V2 datatype, shape, and its values flat, row by row; null is NaN or an infinity."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: Sequence[Any]


class InferResponse(Struct, frozen=True):
    """The answer to an infer request; `model_version` is the version that answered."""

    model_name: str
    model_version: str
    outputs: list[Tensor]
    id: str | None = None

    def get_output(self, name: str) -> Tensor:
        """Return the output of that name; raise `NotFoundError` if the answer has none."""
        for output in self.outputs:
            if output.name == name:
                return output
        raise NotFoundError(f"{self.model_name} answered without {name!r}; its outputs are {self.outputs}.")


class TensorMetadata(Struct, frozen=True):
    """An input or output as model metadata tells of it; -1 is a free dimension."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Struct, frozen=True):
    """What the server says of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelNames(Struct, frozen=True):
    """The names of all models."""

    models: list[str]


class TlsInfo(Struct, frozen=True):
    """How a connection is encrypted, `TLSv1.3` for example, and when the server's certificate expires."""

    version: str
    expires: str  # as in certificates: Jan  5 09:34:43 2027 GMT


class RawResponse(Struct, frozen=True):
    """An answer of any status; its content is decompressed, and header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    seconds: float  # until it was read in full
    tls: TlsInfo | None = None


class Client:
    """A connection to the server at `url`, which may end in a stage: `https://host/prod`.

    Every call raises the error of `pilotlight.errors` for the server's status, with the server's message, and
    `UnavailableError` if there is no answer.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = TIMEOUT_S,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        auth: httpx2.Auth | None = None,
    ) -> None:
        """Create a client that sends a key or token, or signs requests: `auth=client.auth.IamAuth(url)`."""
        self.url = url.rstrip("/")
        headers = {**(headers or {}), **({"authorization": f"Bearer {key}"} if key is not None else {})}
        check_headers(headers)
        try:
            self._http = httpx2.Client(base_url=self.url, timeout=timeout_s, headers=headers, auth=auth)
        except httpx2.InvalidURL as exc:
            raise InvalidInputError(f"{url!r} is not a URL: {exc}; {URL_FORMS}.") from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @property
    def registry(self) -> RemoteRegistry:
        """The server's versions and aliases; on AWS a key needs the scope `admin`."""
        return RemoteRegistry(self._call)

    @property
    def trainings(self) -> RemoteTrainings:
        """The server's trainings; on AWS a key needs the scope `train`."""
        return RemoteTrainings(self._call)

    def is_ready(self) -> bool:
        """Return whether the server answers and reaches its store."""
        try:
            self._call("GET", "/v2/health/ready")
        except UnavailableError:
            return False
        return True

    def list_models(self) -> list[str]:
        """List the names of all models."""
        return decode_body(self._call("GET", "/v2/models"), ModelNames).models

    def get_metadata(self, model: str, version: str | None = None) -> ModelMetadata:
        """Get the metadata of a model, or of one of its versions or aliases."""
        return decode_body(self._call("GET", build_model_path(model, version)), ModelMetadata)

    def infer(
        self,
        model: str,
        inputs: Sequence[Tensor],
        *,
        version: str | None = None,
        outputs: Sequence[str] = (),
        id: str | None = None,  # noqa: A002 - the protocol's name
    ) -> InferResponse:
        """Send one inference; `version` is a number or an alias, `outputs` names the wanted outputs, by default all."""
        body: dict[str, Any] = {"inputs": inputs}
        if outputs:
            body["outputs"] = [{"name": name} for name in outputs]
        if id is not None:
            body["id"] = id
        return decode_body(self.infer_json(model, msgspec.json.encode(body), version=version), InferResponse)

    def predict(
        self,
        model: str,
        content: PredictionInput,
        *,
        version: str | None = None,
        outputs: Sequence[str] = (),
    ) -> InferResponse:
        """Send one inference of one or several images (PNG or JPEG), one or several texts, or columns of a table.

        `client.predict("wine", {"alcohol": [13.2, 12.4], "ash": [2.1, None]})`; None is a missing value.
        """
        inputs = build_tensors(content, self.get_metadata(model, version))
        return self.infer(model, inputs, version=version, outputs=outputs)

    def infer_json(self, model: str, body: bytes, *, version: str | None = None) -> bytes:
        """Send one inference as JSON, and return the answer's JSON."""
        return self._call("POST", build_model_path(model, version) + "/infer", body)

    def send_request(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> RawResponse:
        """Send any request and return the answer of any status; raise `UnavailableError` if there is none."""
        began = time.perf_counter()
        try:
            response = self._http.request(method, target, content=body, headers=headers)
        except httpx2.UnsupportedProtocol as exc:
            raise InvalidInputError(f"{self.url!r} is not a URL; {URL_FORMS}.") from exc
        except httpx2.DecodingError as exc:
            raise UnavailableError(
                f"{self.url} answered {target} with a body that does not decompress: {exc}."
            ) from exc
        except httpx2.TransportError as exc:
            hint = "; is `pilotlight serve` running?" if self.url.startswith(LOCAL_STARTS) else "."
            raise UnavailableError(f"Nothing answers at {self.url} ({exc}){hint}") from exc
        seconds = time.perf_counter() - began
        return RawResponse(
            response.status_code, dict(response.headers), response.content, seconds, read_tls_info(response)
        )

    @contextmanager
    def open_stream(self, target: str, body: bytes, timeout_s: float = STREAM_TIMEOUT_S) -> Iterator[httpx2.Response]:
        """Send a body, and read the answer while it comes; `timeout_s` is the longest pause between two of its bytes.

        Raises as the other calls do; what breaks off later is an `UnavailableError` too.
        """
        headers = {"content-type": "application/json"}
        try:
            with self._http.stream("POST", target, content=body, headers=headers, timeout=timeout_s) as response:
                if response.status_code != httpx2.codes.OK:
                    content = response.read()
                    reply = RawResponse(response.status_code, dict(response.headers), content, 0.0)
                    raise build_error(reply)
                yield response
        except httpx2.UnsupportedProtocol as exc:
            raise InvalidInputError(f"{self.url!r} is not a URL; {URL_FORMS}.") from exc
        except (httpx2.TransportError, httpx2.DecodingError) as exc:
            raise UnavailableError(f"{self.url} answers no more ({exc}); try again.") from exc

    def _call(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        headers = {**(headers or {}), **({"content-type": "application/json"} if body is not None else {})}
        reply = self.send_request(method, target, body, headers)
        if reply.status not in (httpx2.codes.OK, httpx2.codes.ACCEPTED):
            raise build_error(reply)
        return reply.content


def build_error(reply: RawResponse) -> PilotlightError:
    """Build the error for the status of an answer, with the server's message; one may be worth another try."""
    kind = ERROR_BY_STATUS.get(reply.status, UnavailableError)
    seconds = reply.headers.get("retry-after", "")
    if kind is UnavailableError and seconds.isdecimal():
        return UnavailableError(get_error_message(reply), retry_after=int(seconds))
    return kind(get_error_message(reply))


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise `InvalidInputError` for a value that HTTP cannot carry, without quoting it: it may be a secret."""
    for name, value in headers.items():
        if not HEADER_VALUE.fullmatch(value):
            raise InvalidInputError(
                f"The header {name} cannot be sent: its value has a line break, a blank at an end or a letter beyond "
                "ASCII in it. See where it comes from."
            )


def build_tensors(content: PredictionInput, model: ModelMetadata) -> list[Tensor]:
    """Build the inputs of a model of images, texts or columns; raise `InvalidInputError` if it takes others."""
    if isinstance(content, Mapping):
        return build_column_tensors(content, model)
    items = [content] if isinstance(content, bytes | str) else list(content)
    if [(spec.datatype, spec.shape) for spec in model.inputs] != [("BYTES", [-1])]:
        expected = ", ".join(f"{spec.name} {spec.datatype} {spec.shape}" for spec in model.inputs)
        raise InvalidInputError(f"{model.name} takes neither files nor texts, but {expected}.")
    data = [base64.b64encode(item).decode() if isinstance(item, bytes) else item for item in items]
    return [Tensor(model.inputs[0].name, "BYTES", [len(data)], data)]


def build_column_tensors(content: Mapping[str, Sequence[Any]], model: ModelMetadata) -> list[Tensor]:
    """Build a tensor for each column: numbers in the datatype of the model, anything else as text."""
    datatypes = {spec.name: spec.datatype for spec in model.inputs}
    return [Tensor(name, *encode_column(values, datatypes.get(name, "BYTES"))) for name, values in content.items()]


def encode_column(values: Sequence[Any], datatype: str) -> tuple[str, list[int], list[Any]]:
    """Return datatype, shape and data of a column: texts if the model takes texts, or if a value is one."""
    if datatype == "BYTES" or any(isinstance(value, str) for value in values):
        return "BYTES", [len(values)], [None if value is None else str(value) for value in values]
    return datatype, [len(values)], list(values)


def build_model_path(model: str, version: str | None) -> str:
    """Build the path of a model, or of one of its versions or aliases."""
    return f"/v2/models/{model}" + (f"/versions/{version}" if version is not None else "")


def decode_body(body: bytes, body_type: type[Answer]) -> Answer:
    """Decode a body; raise `UnavailableError` if it is not of the V2 protocol."""
    try:
        return msgspec.json.decode(body, type=body_type)
    except msgspec.MsgspecError as exc:
        raise UnavailableError(f"The server did not answer as V2 does: {exc}.") from exc


def get_error_message(reply: RawResponse) -> str:
    """Return the server's sentence, or its status and the start of the body."""
    try:
        body = msgspec.json.decode(reply.content, type=dict[str, Any])
    except msgspec.MsgspecError:
        body = {}
    error = body.get("error")  # V2's text or OpenAI's object; the gateway and MLflow's routes have none
    message = error if isinstance(error, str) else (error if isinstance(error, dict) else body).get("message")
    if isinstance(message, str) and message:
        return message
    return f"The server answered {reply.status}: {reply.content[:200].decode(errors='replace')}"


def read_tls_info(response: httpx2.Response) -> TlsInfo | None:
    """Read how the connection is encrypted; return None if it is not."""
    stream = response.extensions.get("network_stream")
    tls = stream.get_extra_info("ssl_object") if stream is not None else None
    return TlsInfo(tls.version(), tls.getpeercert()["notAfter"]) if tls is not None else None
