"""What each V2 route answers. Only `infer` and a model's `ready` open a model; metadata comes from manifests."""

import pilotlight
from pilotlight import tasks
from pilotlight.api import v2
from pilotlight.api.messages import Request, Response
from pilotlight.api.router import Routes
from pilotlight.contracts import Reference
from pilotlight.runtime.catalog import Catalog


class Endpoints:
    """The V2 protocol over a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def routes(self) -> Routes:
        """The table of routes, spelled as in template.yaml; a `{version}` may be a number or an alias."""
        return {
            "/v2": {"GET": self.server},
            "/v2/health/live": {"GET": self.live},
            "/v2/health/ready": {"GET": self.ready},
            "/v2/models": {"GET": self.models},
            "/v2/models/{model}": {"GET": self.model},
            "/v2/models/{model}/ready": {"GET": self.model_ready},
            "/v2/models/{model}/infer": {"POST": self.infer},
            "/v2/models/{model}/versions/{version}": {"GET": self.model},
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

    def model_ready(self, request: Request) -> Response:
        """Ready means that the next inference will be answered, so this opens the model if nobody has."""
        model = self._catalog.model(reference(request))
        return Response.json({"name": model.manifest.name, "ready": True})

    def infer(self, request: Request) -> Response:
        """One inference: bytes to arrays, the steps before the graph, the graph, those behind it, arrays to bytes."""
        model = self._catalog.model(reference(request))
        asked = v2.decode_infer(request.body, request.headers, model.manifest)
        wanted = [output.name for output in asked.outputs]
        feeds = tasks.prepare(model.manifest, asked.tensors, model.assets)
        results = model.session.run(feeds, tasks.needs(model.manifest, wanted))
        answer = tasks.finish(model.manifest, results, feeds, wanted)
        return v2.encode_infer(model.manifest, asked, answer, request.headers.get("accept-encoding", ""))


def reference(request: Request) -> Reference:
    """The model and version that the path names."""
    return Reference.select(request.parameters["model"], request.parameters.get("version"))
