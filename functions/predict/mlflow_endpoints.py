"""What each route of MLflow's scoring protocol answers, by the same catalog, checks and graphs as V2's."""

from collections.abc import Callable

import pilotlight
from functions.predict.v2_endpoints import InferenceFunction
from pilotlight import processing
from pilotlight.api import mlflow
from pilotlight.api.http import Request, Response
from pilotlight.api.model_statistics import ModelStatistics
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import InvalidInputError
from pilotlight.inference import InferenceCallback, count_examples
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.model_cache import LoadedModel
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.traffic import InferenceResult

RouteByTrafficSplit = Callable[[Request, ModelReference, InferenceFunction], Response]
TEXT_HEADERS = {"content-type": "text/plain; charset=utf-8"}


class MlflowEndpoints:
    """MLflow's protocol over a catalog.

    `default_model` is the reference behind it, empty for the store's only model; `route_by_traffic_split` asks the
    version that an alias's shares send a caller to.
    """

    def __init__(
        self,
        model_manager: ModelManager,
        statistics: ModelStatistics,
        deadline_runner: DeadlineRunner,
        default_model: str,
        route_by_traffic_split: RouteByTrafficSplit,
    ) -> None:
        self._model_manager = model_manager
        self._statistics = statistics
        self._deadline_runner = deadline_runner
        self._default_model = default_model
        self._route_by_traffic_split = route_by_traffic_split

    def answer(self, request: Request) -> Response:
        """Answer one of MLflow's routes, whose verb the router has checked; errors are in MLflow's words."""
        endpoints = {"/invocations": self.invoke, "/version": self.get_version}
        return mlflow.wrap_mlflow_errors(endpoints.get(request.resource, self.ping))(request)

    def ping(self, request: Request) -> Response:
        """Healthy: the store answers. MLflow's own server sends an empty line."""
        self._model_manager.registry.store.list_folders("models")
        return Response(200, b"\n", TEXT_HEADERS)

    def get_version(self, request: Request) -> Response:
        """The version of the server as plain text."""
        return Response(200, pilotlight.__version__.encode(), TEXT_HEADERS)

    def invoke(self, request: Request) -> Response:
        """One call of the scoring protocol."""
        return self._route_by_traffic_split(request, self.parse_reference(request), self._infer_on_version)

    def _infer_on_version(
        self, request: Request, model: LoadedModel, on_inference: InferenceCallback | None
    ) -> InferenceResult[Response]:
        """The answer of one version; `on_inference` is shown what is asked and answered."""
        trace = request.trace
        trace.model, trace.version = model.manifest.name, model.manifest.version
        with self._statistics.start_call(model.key) as call:
            tensors = mlflow.decode_request(request.body, request.headers, model.manifest)
            feeds = processing.preprocess_inputs(model.manifest, tensors, model.assets)
            call.mark_decoded(count_examples(model.manifest, feeds))
            trace.mark_stage("decode")
            requested_outputs = [spec.name for spec in processing.get_call_signature(model.manifest, tensors).outputs]
            results = self._deadline_runner.run(
                model.session, feeds, processing.select_graph_outputs(model.manifest, requested_outputs), trace.deadline
            )
            call.mark_inferred()
            trace.mark_stage("infer")
            outputs = processing.postprocess_outputs(model.manifest, results, feeds, requested_outputs)
            if on_inference is not None:
                on_inference(model.manifest, tensors, feeds, results)
            answer = {name: outputs[name] for name in requested_outputs}
            accept_encoding = request.headers.get("accept-encoding", "")
            return InferenceResult(mlflow.encode_response(model.manifest, answer, accept_encoding), answer)

    def parse_reference(self, request: Request) -> ModelReference:
        """The model that is meant: the header's, the query's, the setting's, else the only one of the store."""
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
