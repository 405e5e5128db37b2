"""What each V2 and MLflow route answers. Only inferences and `ready` open a model; metadata comes from manifests."""

from collections.abc import Mapping, Sequence

import pilotlight
from pilotlight import tasks
from pilotlight.api import mlflow, v2
from pilotlight.api.messages import Request, Response
from pilotlight.api.router import Routes
from pilotlight.api.statistics import Statistics
from pilotlight.contracts import Manifest, Reference
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.catalog import Catalog
from pilotlight.runtime.session import Array
from pilotlight.runtime.warm import Key

TEXT = {"content-type": "text/plain; charset=utf-8"}


class Endpoints:
    """The V2 protocol over a catalog, and MLflow's for one of its models."""

    def __init__(self, catalog: Catalog, model: str = "") -> None:
        self._catalog = catalog
        self._model = model  # the reference behind /invocations
        self._statistics = Statistics()

    def routes(self) -> Routes:
        """The table of routes, spelled as in template.yaml; a `{version}` may be a number or an alias."""
        return {
            "/ping": {"GET": mlflow.answering(self.ping)},
            "/health": {"GET": mlflow.answering(self.ping)},
            "/version": {"GET": self.version},
            "/invocations": {"POST": mlflow.answering(self.invocations)},
            "/v2": {"GET": self.server},
            "/v2/health/live": {"GET": self.live},
            "/v2/health/ready": {"GET": self.ready},
            "/v2/models": {"GET": self.models},
            "/v2/models/stats": {"GET": self.all_statistics},
            "/v2/models/{model}": {"GET": self.model},
            "/v2/models/{model}/config": {"GET": self.config},
            "/v2/models/{model}/stats": {"GET": self.statistics},
            "/v2/models/{model}/ready": {"GET": self.model_ready},
            "/v2/models/{model}/infer": {"POST": self.infer},
            "/v2/models/{model}/versions/{version}": {"GET": self.model},
            "/v2/models/{model}/versions/{version}/config": {"GET": self.config},
            "/v2/models/{model}/versions/{version}/stats": {"GET": self.statistics},
            "/v2/models/{model}/versions/{version}/ready": {"GET": self.model_ready},
            "/v2/models/{model}/versions/{version}/infer": {"POST": self.infer},
        }

    def server(self, request: Request) -> Response:
        """Server metadata."""
        return Response.json({"name": "pilotlight", "version": pilotlight.__version__, "extensions": v2.EXTENSIONS})

    def live(self, request: Request) -> Response:
        """Live: the process answers."""
        return Response.json({"live": True})

    def ready(self, request: Request) -> Response:
        """Ready: the store answers too. Both keys, since the specification's text and its schema differ."""
        self._catalog.registry.store.folders("models")
        return Response.json({"live": True, "ready": True})

    def models(self, request: Request) -> Response:
        """The names of all models, as KServe lists them."""
        return Response.json({"models": self._catalog.registry.models()})

    def model(self, request: Request) -> Response:
        """Model metadata of the version that is meant, and the list of all versions."""
        manifest = self._catalog.manifest(reference(request))
        return Response.json(v2.metadata(manifest, self._catalog.registry.versions(manifest.name)))

    def config(self, request: Request) -> Response:
        """The model's configuration in Triton's words."""
        return Response.json(v2.config(self._catalog.manifest(reference(request))))

    def all_statistics(self, request: Request) -> Response:
        """What this environment has answered, of all versions that it was asked for."""
        return self._counted(self._statistics.versions())

    def statistics(self, request: Request) -> Response:
        """The same of one version, or of the champion and every other version of the model that was asked for."""
        manifest = self._catalog.manifest(reference(request))
        named = {(manifest.name, manifest.version)}
        others = [] if "version" in request.parameters else self._statistics.versions(manifest.name)
        return self._counted(sorted(named.union(others)))

    def model_ready(self, request: Request) -> Response:
        """Ready means that the next inference will be answered, so this opens the model if nobody has."""
        model = self._catalog.model(reference(request))
        return Response.json({"name": model.manifest.name, "ready": True})

    def infer(self, request: Request) -> Response:
        """One inference: bytes to arrays, checks, the graph, arrays to bytes."""
        model = self._catalog.model(reference(request))
        with self._statistics.call(model.key) as call:
            asked = v2.decode_infer(request.body, request.headers, model.manifest)
            feeds = tasks.prepare(model.manifest, asked.tensors)
            call.decoded(items(model.manifest, asked.tensors))
            results = model.session.run(feeds, [output.name for output in asked.outputs])
            call.inferred()
            return v2.encode_infer(model.manifest, asked, results, request.headers.get("accept-encoding", ""))

    def ping(self, request: Request) -> Response:
        """MLflow's health: the store answers. Its own server sends an empty line."""
        self.ready(request)
        return Response(200, b"\n", TEXT)

    def version(self, request: Request) -> Response:
        """The version of the server as plain text."""
        return Response(200, pilotlight.__version__.encode(), TEXT)

    def invocations(self, request: Request) -> Response:
        """One call of MLflow's scoring protocol, by the same checks and graph as V2's."""
        model = self._catalog.model(self.scored(request))
        with self._statistics.call(model.key) as call:
            tensors = mlflow.decode(request.body, request.headers, model.manifest)
            feeds = tasks.prepare(model.manifest, tensors)
            call.decoded(items(model.manifest, tensors))
            results = model.session.run(feeds)
            call.inferred()
            return mlflow.encode(model.manifest, results, request.headers.get("accept-encoding", ""))

    def scored(self, request: Request) -> Reference:
        """The model behind /invocations: the header's, the query's, the setting's, else the only one of the store."""
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

    def _counted(self, keys: Sequence[Key]) -> Response:
        return Response.json(self._statistics.document(keys, self._catalog.warm.sizes()))


def items(manifest: Manifest, tensors: Mapping[str, Array]) -> int:
    """How many examples the tensors hold: the first input's first dimension, where the model leaves it free."""
    first = next(iter(manifest.inputs), None)
    return len(tensors[first.name]) if first is not None and first.free_shape[:1] == [-1] else 1


def reference(request: Request) -> Reference:
    """The model and version that the path names."""
    return Reference.select(request.parameters["model"], request.parameters.get("version"))
