"""What each route of MLflow's scoring protocol answers, by the same catalog, checks and graphs as V2's."""

from collections.abc import Callable

import pilotlight
from functions.predict.v2_endpoints import Ask
from pilotlight import processing
from pilotlight.api import mlflow
from pilotlight.api.http import Request, Response
from pilotlight.api.model_statistics import Statistics
from pilotlight.contracts.manifest import Reference
from pilotlight.errors import InvalidInputError
from pilotlight.inference import Keep, items
from pilotlight.runtime.inference_deadline import Watch
from pilotlight.runtime.model_cache import WarmModel
from pilotlight.runtime.model_manager import Catalog
from pilotlight.runtime.traffic import Answered

ByShares = Callable[[Request, Reference, Ask], Response]
TEXT = {"content-type": "text/plain; charset=utf-8"}


class Scoring:
    """MLflow's protocol over a catalog.

    `model` is the reference behind it, empty for the store's only model; `by_shares` asks the version that an alias's
    shares send a caller to.
    """

    def __init__(self, catalog: Catalog, statistics: Statistics, watch: Watch, model: str, by_shares: ByShares) -> None:
        self._catalog = catalog
        self._statistics = statistics
        self._watch = watch
        self._model = model
        self._by_shares = by_shares

    def answer(self, request: Request) -> Response:
        """Answer one of MLflow's routes, whose verb the router has checked; errors are in MLflow's words."""
        endpoints = {"/invocations": self.invocations, "/version": self.version}
        return mlflow.answering(endpoints.get(request.resource, self.ping))(request)

    def ping(self, request: Request) -> Response:
        """Healthy: the store answers. MLflow's own server sends an empty line."""
        self._catalog.registry.store.folders("models")
        return Response(200, b"\n", TEXT)

    def version(self, request: Request) -> Response:
        """The version of the server as plain text."""
        return Response(200, pilotlight.__version__.encode(), TEXT)

    def invocations(self, request: Request) -> Response:
        """One call of the scoring protocol."""
        return self._by_shares(request, self.reference(request), self._ask)

    def _ask(self, request: Request, model: WarmModel, keep: Keep | None) -> Answered[Response]:
        """The answer of one version; `keep` is shown what is asked and answered."""
        trace = request.trace
        trace.model, trace.version = model.manifest.name, model.manifest.version
        with self._statistics.call(model.key) as call:
            tensors = mlflow.decode(request.body, request.headers, model.manifest)
            feeds = processing.prepare(model.manifest, tensors, model.assets)
            call.decoded(items(model.manifest, feeds))
            trace.mark("decode")
            wanted = [spec.name for spec in processing.called(model.manifest, tensors).outputs]
            results = self._watch.run(model.session, feeds, processing.needs(model.manifest, wanted), trace.ends)
            call.inferred()
            trace.mark("infer")
            outputs = processing.finish(model.manifest, results, feeds, wanted)
            if keep is not None:
                keep(model.manifest, tensors, feeds, results)
            answer = {name: outputs[name] for name in wanted}
            accepted = request.headers.get("accept-encoding", "")
            return Answered(mlflow.encode(model.manifest, answer, accepted), answer)

    def reference(self, request: Request) -> Reference:
        """The model that is meant: the header's, the query's, the setting's, else the only one of the store."""
        named = request.headers.get(mlflow.MODEL) or request.query.get("model") or self._model
        if named:
            return Reference.parse(named)
        models = self._catalog.registry.models()
        if len(models) != 1:
            known = f"one of {', '.join(models)}" if models else "one once there is one"
            raise InvalidInputError(
                f"Which model? The store has {len(models)}; name {known} by the header X-Pilotlight-Model, by "
                "?model=, or by the variable PILOTLIGHT_MODEL (parameter InvocationsModel in template.yaml)."
            )
        return Reference(models[0])
