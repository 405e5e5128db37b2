"""One V2 inference, from its bytes to the answer's: what every function that answers does between its event and it.

It knows models that are open, not who asked: a caller over HTTP, a message of a queue or a line of a file.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pilotlight import processing
from pilotlight.api import v2
from pilotlight.api.http import Response
from pilotlight.api.large_tensors import Answers, Uploads
from pilotlight.api.model_statistics import Call
from pilotlight.api.request_context import Trace
from pilotlight.contracts.manifest import Manifest, Reference
from pilotlight.runtime.inference_deadline import Watch
from pilotlight.runtime.model_cache import WarmModel
from pilotlight.runtime.model_manager import Catalog
from pilotlight.runtime.session import Array
from pilotlight.runtime.traffic import Answered
from pilotlight.settings import Settings

if TYPE_CHECKING:
    from pilotlight.capture.recorder import Recorder

Arrays = Mapping[str, Array]
Keep = Callable[[Manifest, Arrays, Arrays, Arrays], None]  # what was sent, what the graph was fed, what it gave


def opened(catalog: Catalog, meant: Reference, trace: Trace) -> WarmModel:
    """The open model that is meant; the answer will name its version."""
    waits = catalog.waits
    model = catalog.model(meant, trace.ends)
    trace.model, trace.version, trace.cold = model.manifest.name, model.manifest.version, catalog.waits != waits
    trace.mark("load")
    return model


def answered(
    model: WarmModel,
    body: bytes,
    headers: Mapping[str, str],
    watch: Watch,
    call: Call,
    trace: Trace,
    uploads: Uploads | None = None,
    answers: Answers | None = None,
    keep: Keep | None = None,
) -> Answered[Response]:
    """The answer to a request in the bytes of V2, beside the outputs in it."""
    asked = v2.decode_infer(body, headers, model.manifest, uploads)
    return computed(model, asked, watch, call, trace, headers.get("accept-encoding", ""), answers, keep)


def computed(
    model: WarmModel,
    asked: v2.InferRequest,
    watch: Watch,
    call: Call,
    trace: Trace,
    accepted: str = "",
    answers: Answers | None = None,
    keep: Keep | None = None,
) -> Answered[Response]:
    """The steps before the graph, the graph, those behind it, arrays to bytes; `keep` is shown what went through it."""
    wanted = [output.name for output in asked.outputs]
    feeds = processing.prepare(model.manifest, asked.tensors, model.assets)
    call.decoded(items(model.manifest, feeds))
    trace.mark("decode")
    results = watch.run(model.session, feeds, processing.needs(model.manifest, wanted), trace.ends)
    call.inferred()
    trace.mark("infer")
    outputs = processing.finish(model.manifest, results, feeds, wanted)
    if keep is not None:
        keep(model.manifest, asked.tensors, feeds, results)
    return Answered(v2.encode_infer(model.manifest, asked, outputs, accepted, answers), outputs)


def items(manifest: Manifest, feeds: Mapping[str, Array]) -> int:
    """How many examples the graph is fed: the first input's first dimension, where the model leaves it free."""
    first = next(iter(manifest.inputs), None)
    return len(feeds[first.name]) if first is not None and first.free_shape[:1] == [-1] else 1


def recording(settings: Settings, catalog: Catalog) -> "Recorder | None":
    """What keeps a share of the inferences, for `keep`; nothing where that share is none."""
    if not settings.capture_rate:
        return None
    from pilotlight.capture.recorder import Recorder  # 7 ms that no other cold start spends

    return Recorder(lambda: catalog.registry.store, settings.capture_rate, settings.capture_seconds)
