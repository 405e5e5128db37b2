"""One inference of a batch, by the code that answers requests; the answer is JSON, since it goes where bytes do not."""

from typing import TYPE_CHECKING

from functions.batch_worker.inputs import Body
from pilotlight.api.large_tensors import Uploads
from pilotlight.api.model_statistics import Statistics
from pilotlight.api.request_context import Trace
from pilotlight.contracts.manifest import Reference
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.inference import computed, opened
from pilotlight.runtime.inference_deadline import Watch
from pilotlight.runtime.model_manager import Catalog

if TYPE_CHECKING:
    from pilotlight.capture.recorder import Recorder


class Answers:
    """What the models of a catalog say; `model` is the reference for those who name none."""

    def __init__(
        self,
        catalog: Catalog,
        model: str = "",
        uploads: Uploads | None = None,
        recorder: "Recorder | None" = None,
    ) -> None:
        self._catalog = catalog
        self._recorder = recorder  # of a share of the requests; None where nothing is kept
        self._model = model
        self._uploads = uploads  # tensors that a body only names
        self._statistics = Statistics()
        self._watch = Watch()

    def answer(self, body: Body, meant: Reference | None, ends: float, trace: Trace | None = None) -> tuple[bytes, str]:
        """The V2 answer, and the version that gave it; `ends` is on time.monotonic's clock."""
        if meant is None:
            raise InvalidInputError("No model is named; name it by model_name, and by model_version if need be.")
        trace = trace or Trace(ends)
        model = opened(self._catalog, meant, trace)
        with self._statistics.call(model.key) as call:
            request = body.request(model.manifest, self._uploads)
            if any(output.binary for output in request.outputs):
                raise InvalidInputError("The answers of a batch are JSON; ask for no binary_data.")
            keep = self._recorder.offer if self._recorder is not None else None
            response = computed(model, request, self._watch, call, trace, keep=keep).body
        if self._recorder is not None:
            self._recorder.wake()
        return response.body, f"{model.manifest.name}:{model.manifest.version}"

    def default(self, folder: str = "") -> Reference | None:
        """The model for those who name none: that of a folder's name, the setting's, the store's only one."""
        for named in filter(None, (folder, self._model)):
            try:
                reference = Reference.parse(named)
                self._catalog.manifest(reference)
            except (InvalidInputError, NotFoundError):
                continue
            return reference
        models = self._catalog.registry.models()
        return Reference(models[0]) if len(models) == 1 else None

    def version(self, reference: Reference) -> Reference:
        """The version that a reference means now."""
        return Reference(reference.name, self._catalog.manifest(reference).version)
