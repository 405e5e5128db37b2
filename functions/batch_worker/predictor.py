"""One inference of a batch, by the code that answers requests; the answer is JSON, since it goes where bytes do not."""

from typing import TYPE_CHECKING

from functions.batch_worker.inputs import InferenceInput
from pilotlight.api.large_tensors import UploadedTensors
from pilotlight.api.model_statistics import ModelStatistics
from pilotlight.api.request_context import RequestContext
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.inference import open_model, run_inference
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.model_manager import ModelManager

if TYPE_CHECKING:
    from pilotlight.capture.recorder import CaptureRecorder


class Predictor:
    """What the models of a catalog say; `model` is the reference for those who name none."""

    def __init__(
        self,
        model_manager: ModelManager,
        default_model: str = "",
        uploaded_tensors: UploadedTensors | None = None,
        recorder: "CaptureRecorder | None" = None,
    ) -> None:
        self._model_manager = model_manager
        self._recorder = recorder  # of a share of the requests; None where nothing is kept
        self._default_model = default_model
        self._uploaded_tensors = uploaded_tensors  # tensors that a body only names
        self._statistics = ModelStatistics()
        self._deadline_runner = DeadlineRunner()

    def predict(
        self,
        inference_input: InferenceInput,
        reference: ModelReference | None,
        deadline: float,
        trace: RequestContext | None = None,
    ) -> tuple[bytes, str]:
        """The V2 answer, and the version that gave it; `deadline` is on time.monotonic's clock."""
        if reference is None:
            raise InvalidInputError("No model is named; name it by model_name, and by model_version if need be.")
        trace = trace or RequestContext(deadline)
        model = open_model(self._model_manager, reference, trace)
        with self._statistics.start_call(model.key) as call:
            request = inference_input.to_infer_request(model.manifest, self._uploaded_tensors)
            if any(output.binary for output in request.outputs):
                raise InvalidInputError("The answers of a batch are JSON; ask for no binary_data.")
            on_inference = self._recorder.offer if self._recorder is not None else None
            response = run_inference(model, request, self._deadline_runner, call, trace, on_inference=on_inference).body
        if self._recorder is not None:
            self._recorder.notify()
        return response.body, f"{model.manifest.name}:{model.manifest.version}"

    def find_default_model(self, folder: str = "") -> ModelReference | None:
        """The model for those who name none: that of a folder's name, the setting's, the store's only one."""
        for candidate in filter(None, (folder, self._default_model)):
            try:
                reference = ModelReference.parse(candidate)
                self._model_manager.resolve_manifest(reference)
            except (InvalidInputError, NotFoundError):
                continue
            return reference
        models = self._model_manager.registry.list_models()
        return ModelReference(models[0]) if len(models) == 1 else None

    def resolve_version(self, reference: ModelReference) -> ModelReference:
        """The version that a reference means now."""
        return ModelReference(reference.name, self._model_manager.resolve_manifest(reference).version)
