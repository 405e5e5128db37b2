"""Open and run a version in its own process, as a cold function would: `python -m pilotlight.gate.probe`.

It has its own process because a graph may kill the process that opens it, and because only a fresh process shows how
much memory and time opening takes. It reads a `ProbeRequest` as JSON from standard input; standard output is for the
metrics.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from pilotlight.contracts.codec import decode_document, encode_document
from pilotlight.contracts.manifest import Manifest, Precision
from pilotlight.contracts.metric import NUMBER_METRICS
from pilotlight.contracts.names import ModelReference
from pilotlight.contracts.processing import TextPreprocessing
from pilotlight.errors import InvalidInputError, ModelRefusedError, PilotlightError
from pilotlight.gate import graph_probe, text_probe
from pilotlight.gate.answers import reduce_answers
from pilotlight.gate.probe_result import ProbeResult
from pilotlight.native import child_process
from pilotlight.registry.registry import Registry, version_path
from pilotlight.runtime import golden, golden_recorder, process_memory, request_search
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.example_batches import AXIS_SUFFIX, BatchLayout, find_layout, generate_answers
from pilotlight.runtime.golden_replay import replay_document
from pilotlight.runtime.model_cache import LoadedModel
from pilotlight.runtime.model_files import open_model_files
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.request_search import Feeds
from pilotlight.runtime.scored_output import choose_scored_output, to_scores
from pilotlight.runtime.session import Session, open_session
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store

if TYPE_CHECKING:
    from pilotlight.generation.language_model import LanguageModel

LATENCY_ROUNDS = 30  # single requests, for the latency
BATCH_SIZE = 256  # examples in a batch
EVALUATION_FILE = "evaluation.npz"  # of a version: the graph's inputs by name, and the targets
MIN_MEMORY_BYTES = (
    2_000_000_000  # of the probe; its verdict on a function of less memory is to be measured, not died of
)
FINITE_SEARCH_SECONDS = 2.0  # for made-up requests of a version without golden ones; most are found in 0.1 s
TIMEOUT_S = 600  # a version that takes longer than this is not served by a function


class ProbeRequest(Struct, frozen=True):
    """Which version to open, and what to run on it."""

    store: str
    name: str
    version: int
    memory_mb: Annotated[int, Meta(ge=128)]
    evaluation: int | None  # the version whose test set is used
    answers: str  # path of the folder for the results: probe.json, and what is kept of the answers, <precision>.npz


def run_probe(request: ProbeRequest) -> ProbeResult:
    """Run the probe in a fresh process; if that process dies, the version cannot be opened."""
    outcome = child_process.run_module(
        "pilotlight.gate.probe",
        (),
        memory_bytes=max(MIN_MEMORY_BYTES, 2_000_000 * request.memory_mb),
        seconds=TIMEOUT_S,
        stdin=encode_document(request),
    )
    if outcome.failure:
        return ProbeResult(error=f"the process that opened it failed: {outcome.failure}")
    return decode_document(Path(request.answers, "probe.json").read_bytes(), ProbeResult, "probe.json")


def probe_version(request: ProbeRequest) -> ProbeResult:
    """Open the version as a handler does, then run the golden requests, single requests and the test set."""
    model_manager = ModelManager.from_settings(
        Settings(store=request.store, memory_mb=request.memory_mb), open_store(request.store), generates_text=True
    )
    registry, started = model_manager.registry, time.perf_counter()
    try:
        model = model_manager.get_model(ModelReference(request.name, request.version))
    except PilotlightError as exc:
        return ProbeResult(error=str(exc))
    load_s = time.perf_counter() - started
    if model.language_model is not None:
        return probe_language_model(model, model.language_model, load_golden(registry, model.manifest), load_s)
    if error := find_failure(registry, model):
        return ProbeResult(error=error)
    recorded = load_golden(registry, model.manifest)
    refusal = replay_golden(recorded, model)
    inputs = load_test_inputs(request, registry, model.session)
    at_first = has_finite_answers(model.session, recorded, only_finite=False) if inputs is None else None
    return ProbeResult(
        golden=refusal,
        finite=has_finite_answers(model.session, recorded) if at_first is False else at_first,
        finite_at_first=at_first,
        load_s=load_s,
        latency_ms=0.0 if inputs is None else measure_latency(model.session, inputs),
        peak_mb=process_memory.peak_resident_bytes() / 1e6,
        answered=write_answers(request, registry, model.manifest, model.session, inputs),
    )


def probe_language_model(
    model: LoadedModel,
    language_model: "LanguageModel",
    recorded: golden.GoldenDocument | str | None,
    load_s: float,
) -> ProbeResult:
    """Continue the golden prompts and a text of a language model."""
    from pilotlight.gate import generation_probe  # stands on what other models do not need

    refusal = replay_golden(recorded, model)
    try:
        prompts = generation_probe.list_probe_prompts(language_model, recorded)
        return ProbeResult(
            golden=refusal,
            finite=generation_probe.has_finite_scores(language_model, prompts),
            load_s=load_s,
            text_times=generation_probe.measure_text_times(language_model, prompts),
            peak_mb=process_memory.peak_resident_bytes() / 1e6,
        )
    except PilotlightError as exc:
        return ProbeResult(error=str(exc))


def find_failure(registry: Registry, model: LoadedModel) -> str:
    """Return why made-up requests or hostile texts end for lack of memory or time; empty if they do not."""
    manifest, steps = model.manifest, model.manifest.preprocess
    if isinstance(steps, TextPreprocessing):
        from pilotlight.processing import text

        content = registry.store.get(version_path(manifest.name, manifest.version, steps.tokenizer)).data
        if failure := text_probe.find_tokenizer_failure(content, steps, text.get_fixed_length(manifest)):
            return f"its tokenizer is refused, {failure}"
    return graph_probe.find_run_failure(model.session)


def load_golden(registry: Registry, manifest: Manifest) -> golden.GoldenDocument | str | None:
    """Load the golden requests; why they cannot be read, or None if the version has none."""
    if manifest.golden is None:
        return None
    try:
        stored = registry.store.get(version_path(manifest.name, manifest.version, manifest.golden))
        return decode_document(stored.data, golden.GoldenDocument, manifest.golden)
    except PilotlightError as exc:
        return str(exc)


def replay_golden(recorded: golden.GoldenDocument | str | None, model: LoadedModel) -> str | None:
    """Replay the golden requests; return why they fail, or None."""
    if not isinstance(recorded, golden.GoldenDocument):
        return recorded
    try:
        replay_document(recorded, model)
    except PilotlightError as exc:
        return str(exc)
    return None


def has_finite_answers(
    session: Session, recorded: golden.GoldenDocument | str | None = None, *, only_finite: bool = True
) -> bool | None:
    """Return whether all answers to the golden requests, or to made-up ones, are finite; None if there are none.

    A publish records what is made up, so that a search here, of a version without a record, has few seconds. It is for
    requests that are answered with finite numbers, unless `only_finite` is not set.
    """
    feeds: Sequence[Feeds] = ()
    if isinstance(recorded, golden.GoldenDocument):
        feeds = [golden.to_arrays(exchange.request.inputs) for exchange in recorded.exchanges]
    answers = [answer for feed in feeds if (answer := run_if_taken(session, feed)) is not None]
    if not answers:
        search = request_search.search_requests(session, seconds=FINITE_SEARCH_SECONDS, only_finite=only_finite)
        answers = [session.run(feed) for feed in search.feeds]
    found = [
        np.isfinite(values).all() for answer in answers for values in golden_recorder.select_numeric_arrays(answer)
    ]
    return all(found) if found else None


def run_if_taken(session: Session, feed: Feeds) -> Mapping[str, Array] | None:
    """Run a request; None if the graph refuses it."""
    try:
        return session.run(feed)
    except InvalidInputError:
        return None


@dataclass(frozen=True)
class ProbeInputs:
    """The inputs of a test set, and how a graph takes them."""

    arrays: dict[str, Array]
    layout: BatchLayout


def load_test_inputs(request: ProbeRequest, registry: Registry, session: Session) -> ProbeInputs | None:
    """Load the test set's arrays that the graph takes; None if one of them is missing."""
    if request.evaluation is None:
        return None
    test_set_owner, input_names = (
        registry.load_manifest(request.name, request.evaluation),
        [spec.name for spec in session.inputs],
    )
    with (
        open_model_files(registry.store, test_set_owner, test_set_owner.get_file(EVALUATION_FILE)) as path,
        np.load(path) as held,
    ):
        if not set(input_names) <= set(held.files):
            return None
        arrays = {name: held[name] for name in input_names}
        told = {name: int(held[name + AXIS_SUFFIX]) for name in input_names if name + AXIS_SUFFIX in held.files}
    return ProbeInputs(arrays, find_layout(session, arrays, told))


def measure_latency(session: Session, inputs: ProbeInputs) -> float:
    """Measure the median time of a request with one example, or as few as the graph takes, in ms."""
    one, seconds = inputs.layout.build_feed(inputs.arrays, [0]), []
    for _ in range(LATENCY_ROUNDS):
        started = time.perf_counter()
        session.run(one)
        seconds.append(time.perf_counter() - started)
    return 1000 * median(seconds)


def write_answers(
    request: ProbeRequest, registry: Registry, manifest: Manifest, served: Session, inputs: ProbeInputs | None
) -> tuple[Precision, ...]:
    """Write what is kept of each variant's scores for the test set; the served session is already open."""
    if inputs is None:
        return ()
    targets = load_test_targets(request, registry)
    for precision, variant in manifest.variants.items():
        path = Path(request.answers, f"{precision}.npz")
        if precision == manifest.serve:
            reduce_answers(generate_scores(served, inputs, manifest, targets), targets).save(path)
            continue
        with open_model_files(registry.store, manifest, manifest.get_file(variant.graph)) as graph:
            session = open_session(graph, request.memory_mb)
            reduce_answers(generate_scores(session, inputs, manifest, targets), targets).save(path)
    return tuple(manifest.variants)


def load_test_targets(request: ProbeRequest, registry: Registry) -> Array | None:
    """Load the targets of the test set; None where its file does not have one array that is no input of its version."""
    if request.evaluation is None:
        return None
    owner = registry.load_manifest(request.name, request.evaluation)
    with (
        open_model_files(registry.store, owner, owner.get_file(EVALUATION_FILE)) as path,
        np.load(path) as held,
    ):
        names = {name for name in held.files if not name.endswith(AXIS_SUFFIX)} - {spec.name for spec in owner.inputs}
        return np.asarray(held[names.pop()]) if len(names) == 1 else None


def generate_scores(
    session: Session, inputs: ProbeInputs, manifest: Manifest, targets: Array | None
) -> Iterator[Array]:
    """Generate the output that is judged, one batch at a time: of 256 targets at most, or of one example."""
    name, is_number = choose_scored_output(session), manifest.metric in NUMBER_METRICS
    per_example = 1 if targets is None else max(1, targets.size // max(1, len(targets)))
    size = max(1, BATCH_SIZE // per_example)
    width = 2 if targets is None or is_number else int(targets.max(initial=0)) + 2
    for answers in generate_answers(session, inputs.arrays, inputs.layout, [name], size):
        yield answers[name] if is_number else to_scores(answers[name], width)


def main() -> None:
    """Read the request, probe the version, and write the result."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=ProbeRequest)
    try:
        found = probe_version(request)
    except ModelRefusedError as exc:  # raised by a variant other than the served one
        found = ProbeResult(error=str(exc))
    Path(request.answers, "probe.json").write_bytes(encode_document(found))


if __name__ == "__main__":
    main()
