"""One inference on an open model: the steps that every protocol shares, from the decoded request to the outputs.

A protocol is only an `EncodedRequest` here: a call over HTTP, a message of a queue or a line of a file.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from pilotlight import processing
from pilotlight.api.model_statistics import CallTimer, ModelStatistics
from pilotlight.api.request_context import RequestContext
from pilotlight.api.request_limits import RequestLimits
from pilotlight.api.v2 import InferenceRequest, RequestedOutput
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import TooLargeError
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.environment_memory import EnvironmentMemory
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.model_cache import LoadedModel
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.request_cost import compute_slowdown
from pilotlight.runtime.request_runner import RequestRunner, Run
from pilotlight.runtime.traffic import Body, InferenceResult, RoutedRequest, TrafficRouter
from pilotlight.runtime.trial_callers import TrialCaller
from pilotlight.settings import Settings

if TYPE_CHECKING:
    from pilotlight.capture.recorder import CaptureRecorder

Arrays = Mapping[str, Array]
# Bytes of memory for each byte of an output until it is sent: in JSON, python's numbers and their text beside it.
JSON_ANSWER_FACTOR, BINARY_ANSWER_FACTOR = 16.0, 3.0


class EncodedRequest(Protocol[Body]):
    """A request in the form of its protocol, which also writes the answer to it."""

    def decode(self, manifest: Manifest) -> InferenceRequest:
        """Decode the request for the model of `manifest`; raise `InvalidInputError` if it does not fit."""

    def encode(self, manifest: Manifest, request: InferenceRequest, outputs: Arrays) -> InferenceResult[Body]:
        """Encode the answer, and return it with the outputs by which versions are compared."""


class InferenceService:
    """Runs requests on models, with statistics of each version and a share of the requests for the recorder."""

    def __init__(
        self,
        model_manager: ModelManager,
        statistics: ModelStatistics,
        deadline_runner: DeadlineRunner,
        recorder: "CaptureRecorder | None" = None,
        memory: EnvironmentMemory | None = None,
    ) -> None:
        """Create a service; without a `recorder`, no request is captured, and without `memory`, it is not limited."""
        self.model_manager = model_manager
        self.statistics = statistics
        self._memory = memory or EnvironmentMemory()
        self._runner = RequestRunner(deadline_runner, self._memory, compute_slowdown(model_manager.memory_mb))
        self._recorder = recorder

    def create_limits(self, context: RequestContext) -> RequestLimits:
        """Create the limits for the decoding of a request."""
        return RequestLimits(self._memory, context, self._runner)

    def open_model(self, reference: ModelReference, context: RequestContext) -> LoadedModel:
        """Load the referenced model unless it is open, and note its version in the context."""
        waits = self.model_manager.wait_count
        model = self.model_manager.get_model(reference, context.deadline)
        context.model, context.version = model.key
        context.cold = self.model_manager.wait_count != waits
        context.mark_stage("load")
        return model

    def infer(
        self, model: LoadedModel, request: EncodedRequest[Body], context: RequestContext, *, capture: bool = True
    ) -> InferenceResult[Body]:
        """Decode the request, run the model before the deadline of `context`, and encode the answer.

        Without `capture`, the recorder does not see the request.
        """
        manifest, key = model.manifest, model.key
        context.model, context.version = key
        with self.statistics.start_call(key) as timer:
            try:
                decoded = request.decode(manifest)
                outputs = self._run_model(model, decoded, context, timer, capture=capture)
                return request.encode(manifest, decoded, outputs)
            except MemoryError as exc:
                raise TooLargeError(
                    f"The request takes more memory than the {self._memory.free_bytes / 1e6:,.0f} MB that are free; "
                    "send fewer rows at once, or raise MemorySize in template.yaml (parameter ModelMemory)."
                ) from exc

    def notify_recorder(self) -> None:
        """Let the recorder write what is due, now that an answer is ready."""
        if self._recorder is not None:
            self._recorder.notify()

    def _run_model(
        self,
        model: LoadedModel,
        request: InferenceRequest,
        context: RequestContext,
        timer: CallTimer,
        *,
        capture: bool,
    ) -> Arrays:
        """Preprocess, run the graph, postprocess and capture."""
        manifest, names = model.manifest, [output.name for output in request.outputs]
        if manifest.preprocess is not None:
            self._runner.check_rows(manifest, count_rows(request.tensors), context.deadline)
        feeds, geometries = processing.prepare_inputs(manifest, request.tensors, model.assets)
        recurrence = None if manifest.preprocess is None else processing.find_recurrence(manifest, request.tensors)
        rows = count_examples(manifest, feeds) if recurrence is None else len(feeds[recurrence.input])
        timer.mark_decoded(rows)
        context.mark_stage("decode")
        graph_outputs = processing.select_graph_outputs(manifest, names)
        factor = get_answer_factor(request.outputs)
        results = self._runner.run(Run(model, feeds, graph_outputs, rows, factor, context.deadline, recurrence))
        timer.mark_inferred()
        context.mark_stage("infer")
        outputs = processing.postprocess_outputs(manifest, results, feeds, names, geometries, request.parameters)
        if capture and self._recorder is not None:
            self._recorder.offer(manifest, request.tensors, feeds, results, context.tenant)
        return outputs


class RoutedInference:
    """Runs requests on the versions that their aliases' traffic splits select."""

    def __init__(self, service: InferenceService) -> None:
        self._service = service
        self._traffic_router = TrafficRouter(service.model_manager)

    def infer(
        self,
        reference: ModelReference,
        request: EncodedRequest[Body],
        context: RequestContext,
        get_caller: Callable[[], TrialCaller],
        *,
        capture: bool = True,
    ) -> Body:
        """Answer a request; a shadow's request is not captured."""
        service = self._service

        def infer(model: LoadedModel) -> InferenceResult[Body]:
            return service.infer(model, request, context, capture=capture)

        routed_request = RoutedRequest(
            reference,
            get_caller,
            lambda: service.open_model(reference, context),
            infer,
            lambda model: halve_deadline(context, lambda: infer(model)),
            lambda model: service.infer(model, request, RequestContext(), capture=False),
            lambda: context.deadline - time.monotonic(),
        )
        return self._traffic_router.route_request(routed_request).body


def halve_deadline(
    context: RequestContext, run_inference: Callable[[], InferenceResult[Body]]
) -> InferenceResult[Body]:
    """Run an inference within half of the remaining time, which leaves the other half for a fallback."""
    deadline = context.deadline
    context.deadline = (time.monotonic() + deadline) / 2
    try:
        return run_inference()
    finally:
        context.deadline = deadline


def count_examples(manifest: Manifest, feeds: Arrays) -> int:
    """Count the examples of a batch: the first dimension of the first input, if the model leaves it free."""
    first = manifest.inputs[0] if manifest.inputs else None
    if first is None or not first.shape or isinstance(first.shape[0], int):
        return 1
    return len(feeds[first.name])


def count_rows(tensors: Arrays) -> int:
    """Count the rows of a caller's tensors, before they are prepared for the graph."""
    return max((len(tensor) for tensor in tensors.values() if tensor.ndim), default=1)


def get_answer_factor(outputs: Sequence[RequestedOutput]) -> float:
    """Return how much memory an answer takes for each byte of its outputs."""
    return BINARY_ANSWER_FACTOR if all(output.binary for output in outputs) else JSON_ANSWER_FACTOR


def create_environment_memory(settings: Settings) -> EnvironmentMemory:
    """Create the memory of a function; in an execution environment, allocations beyond it fail."""
    return EnvironmentMemory(settings.memory_mb, enforced=bool(settings.runtime_api))


def create_recorder(settings: Settings, model_manager: ModelManager) -> "CaptureRecorder | None":
    """Create the recorder of a share of the inferences; return None if that share is 0."""
    if not settings.capture_rate:
        return None
    from pilotlight.capture.recorder import CaptureRecorder  # takes 7 ms, which other cold starts do not spend

    return CaptureRecorder(lambda: model_manager.registry.store, settings.capture_rate, settings.capture_seconds)
