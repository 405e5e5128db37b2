"""Endpoints of MLflow's scoring protocol, on the same models, checks and graphs as those of V2."""

from collections.abc import Callable, Mapping

from msgspec import Struct

import pilotlight
from pilotlight import processing
from pilotlight.api import mlflow, v2
from pilotlight.api.http import JSON, Request, Response
from pilotlight.api.request_limits import UNLIMITED, RequestLimits
from pilotlight.api.v2 import InferenceRequest, RequestedOutput
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import InvalidInputError
from pilotlight.inference import Arrays, EncodedRequest, InferenceService
from pilotlight.runtime.traffic import InferenceResult

InferenceFunction = Callable[[Request, ModelReference, EncodedRequest[Response]], Response]
TEXT_HEADERS = {"content-type": "text/plain; charset=utf-8"}


class MlflowRequest(Struct, frozen=True):
    """A request of MLflow's scoring protocol; its answer has the outputs of the signature that was called."""

    body: bytes
    headers: Mapping[str, str]
    limits: RequestLimits = UNLIMITED
    query: Mapping[str, str] = {}  # parameters beside a file

    def decode(self, manifest: Manifest) -> InferenceRequest:
        """Decode the body: JSON or CSV in any form of the protocol, else a file or a form."""
        headers, body = self.headers, self.body
        content_type = headers.get("content-type", "")
        if not mlflow.is_text_type(content_type):
            from pilotlight.api import file_bodies

            body = v2.decompress_within_limits(self.body, self.headers, self.limits)
            if not file_bodies.is_untold_object(body, content_type):
                return file_bodies.decode_file_request(
                    body, content_type, manifest, self.limits, mlflow.MEDIA_TYPES, self.query
                )
            headers = {"content-type": JSON}
        tensors = mlflow.decode_request(body, headers, manifest, self.limits)
        outputs = processing.get_call_signature(manifest, tensors).outputs
        return InferenceRequest(None, tensors, [RequestedOutput(spec.name) for spec in outputs])

    def encode(self, manifest: Manifest, request: InferenceRequest, outputs: Arrays) -> InferenceResult[Response]:
        """Encode the predictions."""
        answer = {requested.name: outputs[requested.name] for requested in request.outputs}
        # All outputs are compared by canaries and shadows, since the first of an answer may be a text.
        response = mlflow.encode_response(manifest, answer, self.headers.get("accept-encoding", ""))
        return InferenceResult(response, outputs, request.row_count)


class MlflowEndpoints:
    """The endpoints of MLflow's protocol.

    `default_model` is the reference of the served model, empty for the store's only model; `infer` runs a request on
    the version that the alias's traffic split selects for the caller.
    """

    def __init__(self, service: InferenceService, default_model: str, infer: InferenceFunction) -> None:
        self._service = service
        self._model_manager = service.model_manager
        self._default_model = default_model
        self._infer = infer

    def answer(self, request: Request) -> Response:
        """Answer one of MLflow's routes, whose verb the router has checked."""
        endpoints = {"/invocations": self.invoke, "/version": self.get_version}
        return endpoints.get(request.resource, self.ping)(request)

    def ping(self, request: Request) -> Response:
        """Check that the store answers; return an empty line, as MLflow's server does."""
        self._model_manager.registry.store.list_folders("models")
        return Response(200, b"\n", TEXT_HEADERS)

    def get_version(self, request: Request) -> Response:
        """Return the version of the server as plain text."""
        return Response(200, pilotlight.__version__.encode(), TEXT_HEADERS)

    def invoke(self, request: Request) -> Response:
        """Answer one inference."""
        limits = self._service.create_limits(request.trace)
        infer_request = MlflowRequest(request.body, request.headers, limits, request.query)
        return self._infer(request, self.parse_reference(request), infer_request)

    def parse_reference(self, request: Request) -> ModelReference:
        """Parse the model's reference from header, query or setting; else choose the store's only model."""
        named = request.headers.get(mlflow.MODEL_HEADER) or request.query.get("model") or self._default_model
        if named:
            return ModelReference.parse(named)
        models = self._model_manager.registry.list_models()
        if len(models) != 1:
            suggestion = f"one of {', '.join(models)}" if models else "one once there is one"
            raise InvalidInputError(
                f"Which model? The store has {len(models)}; name {suggestion} by the header X-Pilotlight-Model, by "
                "?model=, or by the variable PILOTLIGHT_MODEL (InvocationsModel in template.yaml)."
            )
        return ModelReference(models[0])
