"""What each V2 route answers. Only `infer` and a model's `ready` open a model; metadata comes from manifests."""

from collections.abc import Mapping, Sequence

import pilotlight
from pilotlight import tasks
from pilotlight.api import v2
from pilotlight.api.messages import Request, Response
from pilotlight.api.router import Routes
from pilotlight.api.statistics import Statistics
from pilotlight.contracts import Manifest, Reference
from pilotlight.runtime.catalog import Catalog
from pilotlight.runtime.session import Array
from pilotlight.runtime.warm import Key


class Endpoints:
    """The V2 protocol over a catalog; MLflow's routes are passed on."""

    def __init__(self, catalog: Catalog, model: str = "") -> None:
        self._catalog = catalog
        self._model = model  # the reference behind /invocations
        self._statistics = Statistics()

    def routes(self) -> Routes:
        """The table of routes, spelled as in template.yaml; a `{version}` may be a number or an alias."""
        return {
            "/ping": {"GET": self.scoring},
            "/health": {"GET": self.scoring},
            "/version": {"GET": self.scoring},
            "/invocations": {"POST": self.scoring},
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
        """One inference: bytes to arrays, the steps before the graph, the graph, those behind it, arrays to bytes."""
        model = self._catalog.model(reference(request))
        with self._statistics.call(model.key) as call:
            asked = v2.decode_infer(request.body, request.headers, model.manifest)
            wanted = [output.name for output in asked.outputs]
            feeds = tasks.prepare(model.manifest, asked.tensors, model.assets)
            call.decoded(items(model.manifest, feeds))
            results = model.session.run(feeds, tasks.needs(model.manifest, wanted))
            call.inferred()
            answer = tasks.finish(model.manifest, results, feeds, wanted)
            return v2.encode_infer(model.manifest, asked, answer, request.headers.get("accept-encoding", ""))

    def scoring(self, request: Request) -> Response:
        """MLflow's routes; their module takes 8 ms to import, which no V2 caller's cold start waits for."""
        from functions.predict.scoring import Scoring

        return Scoring(self._catalog, self._statistics, self._model).answer(request)

    def _counted(self, keys: Sequence[Key]) -> Response:
        return Response.json(self._statistics.document(keys, self._catalog.warm.sizes()))


def items(manifest: Manifest, feeds: Mapping[str, Array]) -> int:
    """How many examples the graph is fed: the first input's first dimension, where the model leaves it free."""
    first = next(iter(manifest.inputs), None)
    return len(feeds[first.name]) if first is not None and first.free_shape[:1] == [-1] else 1


def reference(request: Request) -> Reference:
    """The model and version that the path names."""
    return Reference.select(request.parameters["model"], request.parameters.get("version"))
