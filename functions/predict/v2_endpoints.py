"""What each V2 route answers. Only `infer` and a model's `ready` open a model; metadata comes from manifests."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msgspec import structs

import pilotlight
from pilotlight.api import v2
from pilotlight.api.http import Request, Response
from pilotlight.api.large_tensors import Answers, Uploads
from pilotlight.api.model_statistics import Statistics
from pilotlight.api.request_context import Trace
from pilotlight.api.router import Routes
from pilotlight.contracts.manifest import Reference
from pilotlight.inference import Keep, answered, opened
from pilotlight.runtime.inference_deadline import Watch
from pilotlight.runtime.model_cache import Key, WarmModel
from pilotlight.runtime.model_manager import Catalog
from pilotlight.runtime.traffic import Answered, Experiments

if TYPE_CHECKING:  # 7 ms that only a stack that keeps requests spends
    from pilotlight.capture.recorder import Recorder

CALLER = "x-pilotlight-caller"  # whoever sends the same one meets the same version of an experiment
VERSION = "x-pilotlight-version"  # a caller pins by it, an answer tells by it
CAPTURE = "x-pilotlight-capture"  # `off`: nothing is kept of this request, whatever the stack and the model say
Ask = Callable[[Request, WarmModel, Keep | None], Answered[Response]]  # puts a request to a version


class Endpoints:
    """The V2 protocol over a catalog; MLflow's routes are passed on."""

    def __init__(
        self,
        catalog: Catalog,
        model: str = "",
        tensor_bytes: int = 0,
        *,
        large: bool = False,
        recorder: "Recorder | None" = None,
    ) -> None:
        """`tensor_bytes` of tensors may lie in the store, for one request; `large` answers go there."""
        self._catalog = catalog
        self._recorder = recorder  # of a share of the requests; None where nothing is kept
        self._uploads = Uploads(catalog.registry, tensor_bytes)
        self._answers = Answers(catalog.registry, kept=large)
        self._model = model  # the reference behind /invocations
        self._statistics = Statistics()
        self._watch = Watch()
        self._experiments = Experiments(catalog)

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
        model = self._open(request)
        return Response.json({"name": model.manifest.name, "ready": True})

    def infer(self, request: Request) -> Response:
        """One inference."""
        return self._by_shares(request, reference(request), self._ask)

    def _by_shares(self, request: Request, meant: Reference, ask: Ask) -> Response:
        """The answer of whichever version the alias's shares send this caller to, when it is put to that by `ask`."""
        caller, keep = request.headers.get(CALLER) or request.id, self._keep(request)
        return self._experiments.answer(
            meant,
            caller,
            lambda: opened(self._catalog, meant, request.trace),
            lambda model: ask(request, model, keep),
            lambda model: ask(structs.replace(request, trace=Trace()), model, None),
            lambda model: hurried(request.trace, lambda: ask(request, model, keep)),
        ).body

    def _keep(self, request: Request) -> Keep | None:
        """What is shown the request, unless its caller forbids it."""
        if self._recorder is None or request.headers.get(CAPTURE) == "off":
            return None
        return self._recorder.offer

    def _ask(self, request: Request, model: WarmModel, keep: Keep | None) -> Answered[Response]:
        """The answer of one version; a shadow's is not kept."""
        request.trace.model, request.trace.version = model.manifest.name, model.manifest.version
        with self._statistics.call(model.key) as call:
            given, kept = self._uploads, self._answers
            return answered(model, request.body, request.headers, self._watch, call, request.trace, given, kept, keep)

    def scoring(self, request: Request) -> Response:
        """MLflow's routes; their module takes 8 ms to import, which no V2 caller's cold start waits for."""
        from functions.predict.mlflow_endpoints import Scoring

        return Scoring(self._catalog, self._statistics, self._watch, self._model, self._by_shares).answer(request)

    def _counted(self, keys: Sequence[Key]) -> Response:
        return Response.json(self._statistics.document(keys, self._catalog.warm.sizes()))

    def _open(self, request: Request) -> WarmModel:
        return opened(self._catalog, reference(request), request.trace)


def reference(request: Request) -> Reference:
    """The model that the path names, in the version or alias of the header `x-pilotlight-version`, else of the path."""
    selector = request.headers.get(VERSION) or request.parameters.get("version")
    return select(request.parameters["model"], selector)


def hurried(trace: Trace, ask: Callable[[], Answered[Response]]) -> Answered[Response]:
    """An answer within half of the time that is left, so that there is as much for who answers if this one does not."""
    ends = trace.ends
    trace.ends = (time.monotonic() + ends) / 2
    try:
        return ask()
    finally:
        trace.ends = ends


@functools.lru_cache(1024)
def select(model: str, selector: str | None) -> Reference:
    """The reference; the same few are asked for over and over."""
    return Reference.select(model, selector)
