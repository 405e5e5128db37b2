"""One V2 inference, from its bytes to the answer's: what every function that answers does between its event and it.

It knows models that are open, not who asked: a caller over HTTP, a message of a queue or a line of a file.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pilotlight import processing
from pilotlight.api import v2
from pilotlight.api.http import Response
from pilotlight.api.large_tensors import StoredOutputs, UploadedTensors
from pilotlight.api.model_statistics import CallTimer
from pilotlight.api.request_context import RequestContext
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.names import ModelReference
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.model_cache import LoadedModel
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.traffic import InferenceResult
from pilotlight.settings import Settings

if TYPE_CHECKING:
    from pilotlight.capture.recorder import CaptureRecorder

Arrays = Mapping[str, Array]
InferenceCallback = Callable[
    [Manifest, Arrays, Arrays, Arrays], None
]  # what was sent, what the graph was fed, what it gave


def open_model(model_manager: ModelManager, reference: ModelReference, context: RequestContext) -> LoadedModel:
    """The open model that is meant; the answer will name its version."""
    waits = model_manager.wait_count
    model = model_manager.get_model(reference, context.deadline)
    context.model, context.version, context.cold = (
        model.manifest.name,
        model.manifest.version,
        model_manager.wait_count != waits,
    )
    context.mark_stage("load")
    return model


def infer_v2_body(
    model: LoadedModel,
    body: bytes,
    headers: Mapping[str, str],
    deadline_runner: DeadlineRunner,
    call: CallTimer,
    context: RequestContext,
    uploaded_tensors: UploadedTensors | None = None,
    stored_outputs: StoredOutputs | None = None,
    on_inference: InferenceCallback | None = None,
) -> InferenceResult[Response]:
    """The answer to a request in the bytes of V2, beside the outputs in it."""
    request = v2.decode_infer_request(body, headers, model.manifest, uploaded_tensors)
    return run_inference(
        model, request, deadline_runner, call, context, headers.get("accept-encoding", ""), stored_outputs, on_inference
    )


def run_inference(
    model: LoadedModel,
    request: v2.InferenceRequest,
    deadline_runner: DeadlineRunner,
    call: CallTimer,
    context: RequestContext,
    accept_encoding: str = "",
    stored_outputs: StoredOutputs | None = None,
    on_inference: InferenceCallback | None = None,
) -> InferenceResult[Response]:
    """Run the steps before the graph, the graph and those behind it; `on_inference` is shown what went through."""
    output_names = [output.name for output in request.outputs]
    feeds = processing.preprocess_inputs(model.manifest, request.tensors, model.assets)
    call.mark_decoded(count_examples(model.manifest, feeds))
    context.mark_stage("decode")
    results = deadline_runner.run(
        model.session, feeds, processing.select_graph_outputs(model.manifest, output_names), context.deadline
    )
    call.mark_inferred()
    context.mark_stage("infer")
    outputs = processing.postprocess_outputs(model.manifest, results, feeds, output_names)
    if on_inference is not None:
        on_inference(model.manifest, request.tensors, feeds, results)
    return InferenceResult(
        v2.encode_infer_response(model.manifest, request, outputs, accept_encoding, stored_outputs), outputs
    )


def count_examples(manifest: Manifest, feeds: Mapping[str, Array]) -> int:
    """How many examples the graph is fed: the first input's first dimension, where the model leaves it free."""
    first = next(iter(manifest.inputs), None)
    return len(feeds[first.name]) if first is not None and first.v2_shape[:1] == [-1] else 1


def create_recorder(settings: Settings, model_manager: ModelManager) -> "CaptureRecorder | None":
    """What keeps a share of the inferences, for `on_inference`; nothing where that share is none."""
    if not settings.capture_rate:
        return None
    from pilotlight.capture.recorder import CaptureRecorder  # 7 ms that no other cold start spends

    return CaptureRecorder(lambda: model_manager.registry.store, settings.capture_rate, settings.capture_seconds)
