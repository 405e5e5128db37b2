"""What each V2 route answers. Only `infer` and a model's `ready` open a model; metadata comes from manifests."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msgspec import structs

import pilotlight
from pilotlight.api import v2
from pilotlight.api.http import Request, Response
from pilotlight.api.large_tensors import StoredOutputs, UploadedTensors
from pilotlight.api.model_statistics import ModelStatistics
from pilotlight.api.request_context import RequestContext
from pilotlight.api.router import Routes
from pilotlight.contracts.names import ModelReference
from pilotlight.inference import InferenceCallback, infer_v2_body, open_model
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.model_cache import LoadedModel, VersionKey
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.traffic import InferenceResult, TrafficRouter

if TYPE_CHECKING:  # 7 ms that only a stack that keeps requests spends
    from pilotlight.capture.recorder import CaptureRecorder

CALLER_HEADER = "x-pilotlight-caller"  # whoever sends the same one meets the same version of an experiment
VERSION_HEADER = "x-pilotlight-version"  # a caller pins by it, an answer tells by it
CAPTURE_HEADER = "x-pilotlight-capture"  # `off`: nothing is kept of this request, whatever the stack and the model say
InferenceFunction = Callable[
    [Request, LoadedModel, InferenceCallback | None], InferenceResult[Response]
]  # puts a request to a version


class V2Endpoints:
    """The V2 protocol over a catalog; MLflow's routes are passed on."""

    def __init__(
        self,
        model_manager: ModelManager,
        default_model: str = "",
        tensor_bytes: int = 0,
        *,
        store_large_outputs: bool = False,
        recorder: "CaptureRecorder | None" = None,
    ) -> None:
        """`tensor_bytes` of tensors may lie in the store, for one request; `store_large_outputs` answers go there."""
        self._model_manager = model_manager
        self._recorder = recorder  # of a share of the requests; None where nothing is kept
        self._uploaded_tensors = UploadedTensors(model_manager.registry, tensor_bytes)
        self._stored_outputs = StoredOutputs(model_manager.registry, enabled=store_large_outputs)
        self._default_model = default_model  # the reference behind /invocations
        self._statistics = ModelStatistics()
        self._deadline_runner = DeadlineRunner()
        self._traffic_router = TrafficRouter(model_manager)

    def routes(self) -> Routes:
        """The table of routes, spelled as in template.yaml; a `{version}` may be a number or an alias."""
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
        """Server metadata."""
        return Response.json({"name": "pilotlight", "version": pilotlight.__version__, "extensions": v2.EXTENSIONS})

    def check_live(self, request: Request) -> Response:
        """Live: the process answers."""
        return Response.json({"live": True})

    def check_ready(self, request: Request) -> Response:
        """Ready: the store answers too. Both keys, since the specification's text and its schema differ."""
        self._model_manager.registry.store.list_folders("models")
        return Response.json({"live": True, "ready": True})

    def list_models(self, request: Request) -> Response:
        """The names of all models, as KServe lists them."""
        return Response.json({"models": self._model_manager.registry.list_models()})

    def get_model_metadata(self, request: Request) -> Response:
        """Model metadata of the version that is meant, and the list of all versions."""
        manifest = self._model_manager.resolve_manifest(parse_reference(request))
        return Response.json(
            v2.build_model_metadata(manifest, self._model_manager.registry.list_versions(manifest.name))
        )

    def get_model_config(self, request: Request) -> Response:
        """The model's configuration in Triton's words."""
        return Response.json(v2.build_model_config(self._model_manager.resolve_manifest(parse_reference(request))))

    def get_all_statistics(self, request: Request) -> Response:
        """What this environment has answered, of all versions that it was asked for."""
        return self._to_statistics_response(self._statistics.list_versions())

    def get_model_statistics(self, request: Request) -> Response:
        """The same of one version, or of the champion and every other version of the model that was asked for."""
        manifest = self._model_manager.resolve_manifest(parse_reference(request))
        requested = {(manifest.name, manifest.version)}
        others = [] if "version" in request.parameters else self._statistics.list_versions(manifest.name)
        return self._to_statistics_response(sorted(requested.union(others)))

    def check_model_ready(self, request: Request) -> Response:
        """Ready means that the next inference will be answered, so this opens the model if nobody has."""
        model = self._open_model(request)
        return Response.json({"name": model.manifest.name, "ready": True})

    def infer(self, request: Request) -> Response:
        """One inference."""
        return self._route_by_traffic_split(request, parse_reference(request), self._infer_on_version)

    def _route_by_traffic_split(
        self, request: Request, reference: ModelReference, run_inference: InferenceFunction
    ) -> Response:
        """Answer by `run_inference` of the version that the alias's shares send this caller to."""
        caller, on_inference = request.headers.get(CALLER_HEADER) or request.id, self._get_capture_callback(request)
        return self._traffic_router.route_request(
            reference,
            caller,
            lambda: open_model(self._model_manager, reference, request.trace),
            lambda model: run_inference(request, model, on_inference),
            lambda model: run_inference(structs.replace(request, trace=RequestContext()), model, None),
            lambda model: halve_deadline(request.trace, lambda: run_inference(request, model, on_inference)),
        ).body

    def _get_capture_callback(self, request: Request) -> InferenceCallback | None:
        """What is shown the request, unless its caller forbids it."""
        if self._recorder is None or request.headers.get(CAPTURE_HEADER) == "off":
            return None
        return self._recorder.offer

    def _infer_on_version(
        self, request: Request, model: LoadedModel, on_inference: InferenceCallback | None
    ) -> InferenceResult[Response]:
        """The answer of one version; a shadow's is not kept."""
        request.trace.model, request.trace.version = model.manifest.name, model.manifest.version
        with self._statistics.start_call(model.key) as call:
            uploaded_tensors, stored_outputs = self._uploaded_tensors, self._stored_outputs
            return infer_v2_body(
                model,
                request.body,
                request.headers,
                self._deadline_runner,
                call,
                request.trace,
                uploaded_tensors,
                stored_outputs,
                on_inference,
            )

    def answer_mlflow(self, request: Request) -> Response:
        """MLflow's routes; their module takes 8 ms to import, which no V2 caller's cold start waits for."""
        from functions.predict.mlflow_endpoints import MlflowEndpoints

        return MlflowEndpoints(
            self._model_manager,
            self._statistics,
            self._deadline_runner,
            self._default_model,
            self._route_by_traffic_split,
        ).answer(request)

    def _to_statistics_response(self, keys: Sequence[VersionKey]) -> Response:
        return Response.json(self._statistics.build_document(keys, self._model_manager.model_cache.get_sizes()))

    def _open_model(self, request: Request) -> LoadedModel:
        return open_model(self._model_manager, parse_reference(request), request.trace)


def parse_reference(request: Request) -> ModelReference:
    """The model that the path names, in the version or alias of the header `x-pilotlight-version`, else of the path."""
    selector = request.headers.get(VERSION_HEADER) or request.parameters.get("version")
    return select_reference(request.parameters["model"], selector)


def halve_deadline(
    trace: RequestContext, run_inference: Callable[[], InferenceResult[Response]]
) -> InferenceResult[Response]:
    """An answer within half of the time that is left, so that there is as much for who answers if this one does not."""
    deadline = trace.deadline
    trace.deadline = (time.monotonic() + deadline) / 2
    try:
        return run_inference()
    finally:
        trace.deadline = deadline


@functools.lru_cache(1024)
def select_reference(model: str, selector: str | None) -> ModelReference:
    """The reference; the same few are asked for over and over."""
    return ModelReference.from_selector(model, selector)
