"""Endpoints of the V2 protocol. Only `infer` and a model's `ready` open a model; metadata comes from manifests."""

import functools
from collections.abc import Mapping, Sequence
from functools import partial

from msgspec import Struct

import pilotlight
from pilotlight.api import v2, v2_metadata
from pilotlight.api.http import Request, Response
from pilotlight.api.large_tensors import StoredOutputs, UploadedTensors
from pilotlight.api.request_limits import UNLIMITED, RequestLimits
from pilotlight.api.router import Routes
from pilotlight.api.trial_caller import build_caller
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.names import ModelReference
from pilotlight.inference import Arrays, EncodedRequest, InferenceService, RoutedInference
from pilotlight.runtime.model_cache import LoadedModel, VersionKey
from pilotlight.runtime.traffic import InferenceResult

VERSION_HEADER = "x-pilotlight-version"  # the requested version in a request, the answering one in an answer
CAPTURE_HEADER = "x-pilotlight-capture"  # `off`: the request is not captured, whatever the settings


class V2Request(Struct, frozen=True):
    """An infer request of V2; its inputs may be uploads, and large outputs may go to the store."""

    body: bytes
    headers: Mapping[str, str]
    uploaded_tensors: UploadedTensors
    stored_outputs: StoredOutputs
    limits: RequestLimits = UNLIMITED
    query: Mapping[str, str] = {}  # parameters beside a file

    def decode(self, manifest: Manifest) -> v2.InferenceRequest:
        """Decode the body: JSON, with tensors in binary form after it or not, else a file or a form."""
        headers, body = self.headers, self.body
        if v2.may_be_file(headers, body):
            from pilotlight.api import file_bodies  # few requests need it, so it is not part of a cold start

            body = v2.decompress_within_limits(body, headers, self.limits)
            content_type = headers.get("content-type", "")
            if not file_bodies.is_json(body, content_type):
                return file_bodies.decode_file_request(body, content_type, manifest, self.limits, query=self.query)
            headers = {"content-type": content_type}
        return v2.decode_infer_request(body, headers, manifest, self.uploaded_tensors, self.limits)

    def encode(self, manifest: Manifest, request: v2.InferenceRequest, outputs: Arrays) -> InferenceResult[Response]:
        """Encode the outputs, each in the requested form."""
        accept_encoding = self.headers.get("accept-encoding", "")
        response = v2.encode_infer_response(manifest, request, outputs, accept_encoding, self.stored_outputs)
        return InferenceResult(response, outputs, request.row_count)


class V2Endpoints:
    """The endpoints of the V2 protocol; MLflow's routes are passed on."""

    def __init__(
        self,
        service: InferenceService,
        default_model: str = "",
        tensor_bytes: int = 0,
        *,
        store_large_outputs: bool = False,
    ) -> None:
        """Create endpoints; a request may read at most `tensor_bytes` of tensors from the store."""
        self._service = service
        self._model_manager = service.model_manager
        self._uploaded_tensors = UploadedTensors(self._model_manager.registry, tensor_bytes)
        self._stored_outputs = StoredOutputs(self._model_manager.registry, enabled=store_large_outputs)
        self._default_model = default_model  # the reference behind /invocations
        self._routed_inference = RoutedInference(service)

    def routes(self) -> Routes:
        """Return the endpoints by route and verb; a `{version}` may be a number or an alias."""
        return {
            "/ping": {"GET": self.answer_mlflow},
            "/health": {"GET": self.answer_mlflow},
            "/version": {"GET": self.answer_mlflow},
            "/invocations": {"POST": self.answer_mlflow},
            "/v2": {"GET": self.get_server_metadata},
            "/v2/health/live": {"GET": self.check_live},
            "/v2/health/ready": {"GET": self.check_ready},
            "/v2/models": {"GET": self.list_models},
            "/v2/models/stats": {"GET": self.get_all_statistics},
            "/v2/models/{model}": {"GET": self.get_model_metadata},
            "/v2/models/{model}/config": {"GET": self.get_model_config},
            "/v2/models/{model}/stats": {"GET": self.get_model_statistics},
            "/v2/models/{model}/ready": {"GET": self.check_model_ready},
            "/v2/models/{model}/infer": {"POST": self.infer},
            "/v2/models/{model}/versions/{version}": {"GET": self.get_model_metadata},
            "/v2/models/{model}/versions/{version}/config": {"GET": self.get_model_config},
            "/v2/models/{model}/versions/{version}/stats": {"GET": self.get_model_statistics},
            "/v2/models/{model}/versions/{version}/ready": {"GET": self.check_model_ready},
            "/v2/models/{model}/versions/{version}/infer": {"POST": self.infer},
        }

    def get_server_metadata(self, request: Request) -> Response:
        """Return the server metadata."""
        return Response.json(
            {"name": "pilotlight", "version": pilotlight.__version__, "extensions": v2_metadata.EXTENSIONS}
        )

    def check_live(self, request: Request) -> Response:
        """Return that the process answers."""
        return Response.json({"live": True})

    def check_ready(self, request: Request) -> Response:
        """Check that the store answers; return both keys, since the specification's text and its schema differ."""
        self._model_manager.registry.store.list_folders("models")
        return Response.json({"live": True, "ready": True})

    def list_models(self, request: Request) -> Response:
        """Return the names of all models, in KServe's form."""
        return Response.json({"models": self._model_manager.registry.list_models()})

    def get_model_metadata(self, request: Request) -> Response:
        """Return the metadata of the requested version, with the list of all versions."""
        manifest = self._resolve_manifest(request)
        return Response.json(
            v2_metadata.build_model_metadata(manifest, self._model_manager.registry.list_versions(manifest.name))
        )

    def get_model_config(self, request: Request) -> Response:
        """Return the model's configuration in Triton's form."""
        return Response.json(v2_metadata.build_model_config(self._resolve_manifest(request)))

    def get_all_statistics(self, request: Request) -> Response:
        """Return this environment's statistics of all versions."""
        return self._to_statistics_response(self._service.statistics.list_versions())

    def get_model_statistics(self, request: Request) -> Response:
        """Return the statistics of one version, or of the champion and the model's other requested versions."""
        manifest = self._resolve_manifest(request)
        requested = {(manifest.name, manifest.version)}
        others = [] if "version" in request.parameters else self._service.statistics.list_versions(manifest.name)
        return self._to_statistics_response(sorted(requested.union(others)))

    def check_model_ready(self, request: Request) -> Response:
        """Open the model unless it is open: ready means that the next inference is answered."""
        model = self._open_model(request)
        return Response.json({"name": model.manifest.name, "ready": True})

    def infer(self, request: Request) -> Response:
        """Answer one inference."""
        tenant = request.trace.tenant
        infer_request = V2Request(
            request.body,
            request.headers,
            self._uploaded_tensors.for_tenant(tenant),
            self._stored_outputs.for_tenant(tenant),
            self._service.create_limits(request.trace),
            request.query,
        )
        return self._infer_by_traffic_split(request, parse_reference(request), infer_request)

    def answer_mlflow(self, request: Request) -> Response:
        """Answer MLflow's routes; their module takes 8 ms to import, so it is not part of every cold start."""
        from functions.predict.mlflow_endpoints import MlflowEndpoints

        endpoints = MlflowEndpoints(self._service, self._default_model, self._infer_by_traffic_split)
        return endpoints.answer(request)

    def _infer_by_traffic_split(
        self, request: Request, reference: ModelReference, infer_request: EncodedRequest[Response]
    ) -> Response:
        """Answer with the version that the traffic split selects, unless the caller wants no capture, captured."""
        capture = request.headers.get(CAPTURE_HEADER) != "off"
        caller = partial(build_caller, request)
        return self._routed_inference.infer(reference, infer_request, request.trace, caller, capture=capture)

    def _to_statistics_response(self, keys: Sequence[VersionKey]) -> Response:
        return Response.json(self._service.statistics.build_document(keys, self._model_manager.model_cache.get_sizes()))

    def _resolve_manifest(self, request: Request) -> Manifest:
        return self._model_manager.resolve_manifest(parse_reference(request), request.trace.deadline)

    def _open_model(self, request: Request) -> LoadedModel:
        return self._service.open_model(parse_reference(request), request.trace)


def parse_reference(request: Request) -> ModelReference:
    """Parse the model in the path, and the version or alias in the header `x-pilotlight-version`, else in the path."""
    selector = request.headers.get(VERSION_HEADER) or request.parameters.get("version")
    return select_reference(request.parameters["model"], selector)


@functools.lru_cache(1024)
def select_reference(model: str, selector: str | None) -> ModelReference:
    """Build a reference; it is cached, since requests repeat the same few."""
    return ModelReference.from_selector(model, selector)
