"""What each V2 route answers. Only `infer` and a model's `ready` open a model; metadata comes from manifests."""

import functools

import pilotlight
from pilotlight import tasks
from pilotlight.api import v2
from pilotlight.api.messages import Request, Response
from pilotlight.api.router import Routes
from pilotlight.contracts import Reference
from pilotlight.runtime.catalog import Catalog
from pilotlight.runtime.warm import WarmModel
from pilotlight.runtime.watch import Watch

VERSION = "x-pilotlight-version"  # a caller pins by it, an answer tells by it


class Endpoints:
    """The V2 protocol over a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._watch = Watch()

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
        model = self._open(request)
        return Response.json({"name": model.manifest.name, "ready": True})

    def infer(self, request: Request) -> Response:
        """One inference: bytes to arrays, checks, the graph, arrays to bytes."""
        model, trace = self._open(request), request.trace
        asked = v2.decode_infer(request.body, request.headers, model.manifest)
        feeds = tasks.prepare(model.manifest, asked.tensors)
        trace.mark("decode")
        results = self._watch.run(model.session, feeds, [output.name for output in asked.outputs], trace.ends)
        trace.mark("infer")
        return v2.encode_infer(model.manifest, asked, results, request.headers.get("accept-encoding", ""))

    def _open(self, request: Request) -> WarmModel:
        """The open model that is meant; the answer will name its version."""
        waits, trace = self._catalog.waits, request.trace
        model = self._catalog.model(reference(request), trace.ends)
        trace.version, trace.cold = model.manifest.version, self._catalog.waits != waits
        trace.mark("load")
        return model


def reference(request: Request) -> Reference:
    """The model that the path names, in the version or alias of the header `x-pilotlight-version`, else of the path."""
    selector = request.headers.get(VERSION) or request.parameters.get("version")
    return select(request.parameters["model"], selector)


@functools.lru_cache(1024)
def select(model: str, selector: str | None) -> Reference:
    """The reference; the same few are asked for over and over."""
    return Reference.select(model, selector)
