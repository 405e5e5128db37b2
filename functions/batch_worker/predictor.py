"""Run the inferences of batches with the code of the predict function; answers are JSON, since results are text."""

from msgspec import Struct

from functions.batch_worker.inputs import InferenceInput
from pilotlight.api import v2
from pilotlight.api.large_tensors import UploadedTensors
from pilotlight.api.request_context import RequestContext
from pilotlight.api.request_limits import UNLIMITED, RequestLimits
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.inference import Arrays, InferenceService
from pilotlight.runtime.traffic import InferenceResult


class WorkerRequest(Struct, frozen=True):
    """An input of the batch worker; its answer is the JSON of V2, of any size."""

    inference_input: InferenceInput
    uploaded_tensors: UploadedTensors | None  # tensors that a body gives by `s3_uri`
    limits: RequestLimits = UNLIMITED

    def decode(self, manifest: Manifest) -> v2.InferenceRequest:
        """Decode the input; raise `InvalidInputError` if it requests outputs in binary form."""
        request = self.inference_input.to_infer_request(manifest, self.uploaded_tensors, self.limits)
        if any(output.binary for output in request.outputs):
            raise InvalidInputError("The answers of a batch are JSON; ask for no binary_data.")
        return request

    def encode(self, manifest: Manifest, request: v2.InferenceRequest, outputs: Arrays) -> InferenceResult[bytes]:
        """Encode the body of a V2 answer."""
        return InferenceResult(v2.encode_infer_response(manifest, request, outputs).body, outputs)


class Predictor:
    """Runs inputs of a batch on the models of a store; `default_model` is for inputs that name none."""

    def __init__(
        self, service: InferenceService, default_model: str = "", uploaded_tensors: UploadedTensors | None = None
    ) -> None:
        self._service = service
        self._model_manager = service.model_manager
        self._default_model = default_model
        self._uploaded_tensors = uploaded_tensors

    def predict(
        self,
        inference_input: InferenceInput,
        reference: ModelReference | None,
        deadline: float,
        trace: RequestContext | None = None,
        tenant: str = "",
    ) -> tuple[bytes, str]:
        """Return the V2 answer and the version that gave it; `deadline` is on time.monotonic's clock.

        The input may refer to the uploads of `tenant` alone.
        """
        if reference is None:
            raise InvalidInputError("No model is named; name it by model_name, and by model_version if need be.")
        trace = trace or RequestContext(deadline)
        trace.tenant = tenant
        uploaded_tensors = self._uploaded_tensors and self._uploaded_tensors.for_tenant(tenant)
        model = self._service.open_model(reference, trace)
        request = WorkerRequest(inference_input, uploaded_tensors, self._service.create_limits(trace))
        result = self._service.infer(model, request, trace)
        self._service.notify_recorder()
        return result.body, f"{model.manifest.name}:{model.manifest.version}"

    def find_default_model(self, folder: str = "") -> ModelReference | None:
        """Find the model for inputs without one: that of the folder, of the setting, or the store's only model."""
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
        """Resolve a reference to its current version."""
        return ModelReference(reference.name, self._model_manager.resolve_manifest(reference).version)
