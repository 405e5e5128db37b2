"""`pilotlight publish`: publish a model of any kind as a version.

A graph that is published as it is needs neither torch nor onnx; `cli.model_conversion` converts other models.
"""

import getpass
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import msgspec
import typer

from pilotlight.cli import (
    capture_policy,
    classifier_outputs,
    graph_card,
    hugging_face_cache,
    inferred_steps,
    language_model,
    model_conversion,
    processing_steps,
    triton_repository,
)
from pilotlight.cli.assumptions import Assumptions
from pilotlight.cli.console import ERRORS, STORE, JsonOption, ServerOption, StoreOption, print_json
from pilotlight.cli.graph_source import GraphSource, locate_graph
from pilotlight.cli.inferred_steps import GraphFacts
from pilotlight.cli.publish_target import open_publisher
from pilotlight.contracts import label_file
from pilotlight.contracts.capture_policy import CaptureExtent
from pilotlight.contracts.codec import decode_document, encode_document
from pilotlight.contracts.manifest import Manifest, ManifestDraft, Precision, Task, TensorSpec, Variant
from pilotlight.contracts.names import check_name
from pilotlight.contracts.processing import TextPreprocessing
from pilotlight.contracts.version_files import FileContent
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.gate import graph_probe, text_probe
from pilotlight.gate.graph_probe import GraphExamination
from pilotlight.runtime import booster_format, onnx_header
from pilotlight.runtime.classifier_graph import ClassifierOutputs, build_servable_graph
from pilotlight.runtime.cost_measurement import measure_request_cost
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array
from pilotlight.runtime.golden import GoldenDocument, to_arrays
from pilotlight.runtime.graph_optimization import build_variant
from pilotlight.runtime.session import GraphSignature, Session, open_session

BODY_BYTES = 4_700_000  # about what a function takes of a request: Lambda's 6 MB hold it in base64
MAX_DEFAULTS = 8  # inputs with values in the graph that are told; old exporters list all weights among them
Quantize = Literal["auto", "int8", "int4", "none"]

NO_GOLDEN = (
    "Not checked. No golden requests are recorded: the graph answers no request, or not with the same finite numbers "
    "twice. Nothing will tell that it computes wrongly one day; --sample brings a request of yours."
)


def publish(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="An ONNX file; a folder with one; a Triton model's folder; a Hugging Face checkpoint's; a language "
            "model in GGUF; a .pt2 file; "
            "a model that XGBoost (.json, .ubj), LightGBM (.txt) or CatBoost (.cbm) saved; or file.py:NAME, a function "
            "that gives a torch module and example inputs, or an estimator of scikit-learn or of these: that file "
            "is run.",
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="Of the model: letters, digits, dot, dash, underscore.")],
    task: Annotated[
        Task | None,
        typer.Option(
            "--task", help="What callers send: the graph's tensors, PNG or JPEG files, sound files, texts, or columns."
        ),
    ] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="A text file, one class per line.")] = None,
    quantize: Annotated[
        Quantize | None,
        typer.Option("--quantize", help="auto: int8 where the data given show that it is good enough."),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            "--evaluation",
            metavar="FILE",
            help="Examples and their right answers: npz with the graph's inputs by name, or a table "
            "with the columns that callers send (CSV, Parquet, JSONL). Of a language model, a text.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", metavar="FILE", help="The same without right answers.")
    ] = None,
    steps: Annotated[
        Path | None,
        typer.Option(
            "--processing",
            metavar="FILE",
            help="JSON or YAML: the steps to prepare inputs and to finish outputs. Without it, --task image and text "
            "read the Hugging Face files beside PATH: preprocessor_config.json, tokenizer.json, config.json; "
            "what no file tells is taken from the graph, and told.",
        ),
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option(
            "--sample",
            metavar="FILE",
            help="npz of the graph's inputs, or a V2 request in JSON: recorded as golden instead of made-up requests.",
        ),
    ] = None,
    capture: Annotated[
        CaptureExtent | None,
        typer.Option("--capture", help="What may be kept of requests, where the stack samples some."),
    ] = None,
    mask: Annotated[
        list[str],
        typer.Option("--mask", metavar="FIELD=WORD", help="age=drop, id=hash; '*=drop' drops all that are not named."),
    ] = [],  # noqa: B006 - typer reads it, nothing writes it
    precision: Annotated[Precision, typer.Option("--precision", help="Of the weights in the file.")] = "fp32",
    context: Annotated[
        int | None,
        typer.Option(
            "--context", help="Tokens of prompt and answer together, of a language model; fewer take less memory."
        ),
    ] = None,
    store: StoreOption = STORE,
    url: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Make a model the next version of its name, and print its reference."""
    check_name(name, "model name")
    publish_version = open_publisher(name, store, url, json=json)
    path = hugging_face_cache.choose_snapshot(path)
    assumed = Assumptions()
    options: dict[str, object] = {
        "--name": name, "--task": task, "--labels": labels, "--quantize": quantize,
        "--evaluation": evaluation, "--calibration": calibration, "--sample": sample,
    }  # fmt: skip
    if language_model.is_language_model(path):
        options |= {"--processing": steps, "--context": context, "--mask": mask, "--capture": capture}
        language_model.publish_language_model(path, options, publish_version, url or store, json=json)
        return
    if context is not None:
        raise InvalidInputError(f"--context is for language models, and {path} is none.")
    with TemporaryDirectory(prefix="pilotlight-publish-") as work_folder:
        source = locate_servable_graph(path, Path(work_folder) / "graph-of-tensors")
        classifier = source.classifier if source else None
        folder = source.folder if source else path if path.is_dir() else path.parent
        options |= describe_table_steps(options, task, steps, folder, source, Path(work_folder))
        prepared = prepare_draft(path, source, options, precision, Path(work_folder))
        draft = add_labels(prepared.draft, labels, folder, source, task, assumed)
        draft = add_processing_steps(draft, task, steps, folder, prepared.facts, assumed, classifier)
        draft = classifier_outputs.add_postprocessing(draft, classifier, task, prepared.facts)
        draft = classifier_outputs.resolve_output_names(draft)
        check_labels(draft, labels, prepared.facts, explicit=labels is not None)
        draft, profile_files = capture_policy.add_feature_profile(
            capture_policy.apply_capture_policy(draft, capture, mask),
            choose_profile_examples(evaluation, prepared.files),
            prepared.session,
        )
        note_rows(prepared.facts.signature, assumed)
        files = prepared.files | read_processing_assets(draft, folder) | profile_files
        manifest = publish_version(draft, assumed.add_to_card(files))
    tell_publication(manifest, prepared, assumed, url or store, json=json)


def describe_table_steps(
    options: Mapping[str, object],
    task: Task | None,
    file: Path | None,
    folder: Path,
    source: GraphSource | None,
    work_folder: Path,
) -> dict[str, object]:
    """Write the steps by which a table of examples is prepared, unless the model brings its own; return the options."""
    given = [value for name, value in options.items() if name in ("--evaluation", "--calibration") and value]
    if all(str(value).lower().endswith(".npz") for value in given):
        return {}
    prepare = processing_steps.read_processing_file(file, task).get("prepare") if file else None
    if file is None and task in (None, "text") and (folder / "tokenizer.json").is_file():
        prepare = processing_steps.read_text_steps(folder, Assumptions())
    if prepare is None:
        return {}
    if prepare.get("kind") == "tabular" and source is not None:
        prepare.setdefault("input", open_graph(source.graph).inputs[0].name)
    steps, names = work_folder / "steps.json", work_folder / "labels.json"
    steps.write_bytes(msgspec.json.encode(prepare))
    found = processing_steps.read_labels(folder) if prepare.get("kind") == "text" and not options["--labels"] else ()
    names.write_bytes(msgspec.json.encode(found))
    return {"--steps": steps, "--assets": folder, "--labels": names if found else options["--labels"]}


def choose_profile_examples(evaluation: Path | None, files: Mapping[str, FileContent]) -> Path | None:
    """Choose the arrays that are profiled: the publisher's, or those that a table of his became."""
    if evaluation is None or evaluation.suffix.lower() == ".npz":
        return evaluation
    converted = files.get("evaluation.npz")
    return converted if isinstance(converted, Path) else None


@dataclass(frozen=True)
class PreparedDraft:
    """A draft, the files of its version, and what is known of its graph."""

    draft: ManifestDraft
    files: dict[str, FileContent]
    facts: GraphFacts
    unchecked: str = ""  # what its golden requests leave unchecked: a sentence
    session: Session | None = None  # of its graph, where that was opened in this process


def tell_publication(
    manifest: Manifest, prepared: PreparedDraft, assumed: Assumptions, store: str, *, json: bool
) -> None:
    """Tell on standard error what was assumed and what is not checked, and the reference on standard output."""
    for assumption in () if json else assumed.all:
        ERRORS.print(f"Assumed {assumption}.", markup=False, soft_wrap=True)
    if manifest.preprocess is None and (size := measure_smallest_request(manifest.inputs)) > BODY_BYTES:
        ERRORS.print(
            f"The smallest request has {size:,} bytes, more than the {BODY_BYTES:,} that a function takes: send its "
            "tensors by address, publish with --task image or audio, or export the graph for less.",
            markup=False, style="yellow", soft_wrap=True,
        )  # fmt: skip
    if prepared.unchecked:
        ERRORS.print(prepared.unchecked, markup=False, style="yellow", soft_wrap=True)
    reference = f"{manifest.name}:{manifest.version}"
    if not json:
        typer.echo(reference)
        return
    golden = "recorded" if manifest.golden else "not checked"
    print_json({"reference": reference, "store": store, "golden": golden, "assumed": assumed.all})


def measure_smallest_request(inputs: Sequence[TensorSpec]) -> int:
    """Measure the bytes of a request whose free dimensions are 1, texts left out."""
    numbers = [spec for spec in inputs if spec.datatype != "BYTES"]
    return sum(
        NUMPY_DTYPES[spec.datatype].itemsize * prod(size if isinstance(size, int) else 1 for size in spec.shape)
        for spec in numbers
    )


def locate_servable_graph(path: Path, folder: Path) -> GraphSource | None:
    """Locate the graph in PATH, and rewrite in `folder` what of its outputs is no tensor."""
    source = None if booster_format.check_booster_file(path) else locate_graph(path)
    if source is None:
        return None
    servable = build_servable_graph(source.graph, folder)
    for note in servable.notes:
        ERRORS.print(note, style="yellow", soft_wrap=True)
    labels = source.labels or (servable.classifier.labels if servable.classifier else ())
    return replace(source, graph=servable.path, labels=labels, classifier=servable.classifier)


def prepare_draft(
    path: Path, source: GraphSource | None, options: Mapping[str, object], precision: Precision, folder: Path
) -> PreparedDraft:
    """Build the draft of an existing graph, or of what PATH is converted to."""
    if source is not None and not any(options[name] for name in ("--quantize", "--evaluation", "--calibration")):
        sample = options["--sample"]
        examination = graph_probe.examine_graph(source.graph, precision, sample if isinstance(sample, Path) else None)
        return build_graph_draft(source, str(options["--name"]), precision, folder, examination)
    if source is not None:
        graph_probe.check_graph_runs(source.graph)
    return convert_to_graph(source.graph if source else path, options, precision, folder)


def build_graph_draft(
    source: GraphSource, name: str, precision: Precision, folder: Path, examination: GraphExamination
) -> PreparedDraft:
    """Build the draft of an existing graph as its examination has found it; new files are written to `folder`.

    The examination has opened it as a handler does: here it is not opened, since a large one takes seconds.
    """
    signature, golden = examination.signature, examination.recording.document
    triton_repository.check_signature(source.folder, signature.inputs, signature.outputs)
    with ThreadPoolExecutor(1) as pool:  # measuring waits for a process
        cost = pool.submit(measure_request_cost, source.graph, golden)
        served_variant, files = build_variant(source.graph, f"model.{precision}.onnx", folder)
    outputs = complete_outputs(signature.outputs, examination.output_shapes)
    draft = ManifestDraft(
        name=name,
        inputs=signature.inputs,
        outputs=outputs,
        variants={precision: served_variant},
        serve=precision,
        opset=onnx_header.read_onnx_header(source.graph).opsets.get("", 0) or None,
        golden="golden.json" if golden is not None else None,
        request_cost=cost.result(),
        by=getpass.getuser(),
    )
    unchecked = graph_card.describe_unchecked(examination)
    documents = {
        "model-card.md": graph_card.format_graph_card(draft, source.graph, unchecked, signature.left_out).encode()
    }
    if golden is not None:
        documents["golden.json"] = encode_document(golden)
    facts = GraphFacts(signature, source.graph, collect_answers(golden), examination.input_shapes, outputs)
    return PreparedDraft(draft, {**files, **documents}, facts, unchecked)


def complete_outputs(outputs: Sequence[TensorSpec], seen: Mapping[str, Sequence[int]]) -> tuple[TensorSpec, ...]:
    """Give outputs of which onnxruntime does not say how many dimensions they have those that were seen, all free."""
    return tuple(
        TensorSpec(spec.name, spec.datatype, tuple(f"{spec.name}.{axis}" for axis in range(len(seen[spec.name]))))
        if not spec.shape and seen.get(spec.name)
        else spec
        for spec in outputs
    )


def collect_answers(document: GoldenDocument | None) -> dict[str, list[Array]]:
    """Collect the recorded answers by output."""
    answers: dict[str, list[Array]] = {}
    for exchange in document.exchanges if document else ():
        for name, values in to_arrays(exchange.response.outputs).items():
            answers.setdefault(name, []).append(values)
    return answers


def note_rows(signature: GraphSignature, assumed: Assumptions) -> None:
    """Note which axis holds the rows of a request, and outputs that are left out."""
    first = signature.inputs[0] if signature.inputs else None
    if first is not None and first.shape:
        free = isinstance(first.shape[0], str)
        shape = f"{first.name} is [{', '.join(map(str, first.shape))}]"
        assumed.add("batch", "the first axis" if free else f"none, {first.shape[0]} at once", shape)
    if signature.left_out:
        assumed.add("left out", ", ".join(signature.left_out), "V2 has no type for it")
    if 0 < len(signature.defaults) <= MAX_DEFAULTS:
        assumed.add("no inputs", ", ".join(signature.defaults), "the graph has values of its own for them")


def add_labels(
    draft: ManifestDraft,
    file: Path | None,
    folder: Path,
    source: GraphSource | None,
    task: Task | None,
    assumed: Assumptions,
) -> ManifestDraft:
    """Add the labels of the publisher's file, else those beside the graph, else those of the model itself."""
    chosen = choose_labels(file, folder, task or draft.task)
    if chosen:
        assumed.add("labels", len(chosen), f"from {file or folder / 'config.json'}")
    elif source is not None and source.labels:
        chosen, classifier = source.labels, source.classifier
        is_own = classifier is not None and classifier.labels == chosen
        assumed.add("labels", len(chosen), "from the graph" if is_own else "from the first output's label_filename")
    elif draft.labels:
        assumed.add("labels", len(draft.labels), "from the model itself")
    return msgspec.structs.replace(draft, labels=chosen or draft.labels)


def check_labels(draft: ManifestDraft, file: Path | None, facts: GraphFacts, *, explicit: bool) -> None:
    """Check that there are as many labels as scores, as far as the finish or the publisher makes them count."""
    finish = msgspec.to_builtins(draft.postprocess)
    if finish is not None or explicit:
        inferred_steps.check_label_count(draft.labels, str(file or draft.name), finish, facts)


def convert_to_graph(path: Path, options: Mapping[str, object], precision: Precision, folder: Path) -> PreparedDraft:
    """Convert a model to a graph, or a graph to a smaller one, in another process; optimize the served graph."""
    if precision != "fp32":
        raise InvalidInputError(f"--precision {precision} says that PATH is quantized already; leave --quantize out.")
    into = folder / "taken-in"
    into.mkdir()
    draft, files = model_conversion.convert_model(path, options, into)
    served = draft.variants[draft.serve]
    session = open_graph(files[served.graph])
    served_variant, new_files = build_variant(files[served.graph], served.graph, folder)
    served_variant = msgspec.structs.replace(served_variant, metrics=served.metrics)
    variants: dict[Precision, Variant] = draft.variants | {draft.serve: served_variant}
    golden = decode_document(files[draft.golden].read_bytes(), GoldenDocument, draft.golden) if draft.golden else None
    cost = measure_request_cost(files[served.graph], golden)
    draft = msgspec.structs.replace(draft, variants=variants, request_cost=cost, by=getpass.getuser())
    facts = GraphFacts(session.signature, files[served.graph], collect_answers(golden), {}, session.outputs)
    return PreparedDraft(draft, {**files, **new_files}, facts, "" if golden else NO_GOLDEN, session)


def choose_labels(file: Path | None, folder: Path, task: Task | None) -> tuple[str, ...]:
    """Choose the labels of the publisher's file; else, for images and texts, those of the Hugging Face model."""
    if file is not None:
        return label_file.read_label_file(file)
    return processing_steps.read_labels(folder) if task in {"image", "text"} else ()


def add_processing_steps(
    draft: ManifestDraft,
    task: Task | None,
    file: Path | None,
    folder: Path,
    facts: GraphFacts,
    assumed: Assumptions,
    classifier: ClassifierOutputs | None = None,
) -> ManifestDraft:
    """Add the steps of the publisher's file, of the files beside the graph, or of the graph itself, to the draft."""
    chosen = task or draft.task
    if file is not None:
        steps = processing_steps.read_processing_file(file, task)
    elif chosen in {"image", "text"}:
        steps = processing_steps.read_hugging_face_steps(folder, chosen, facts.outputs, draft.labels, assumed)
        if steps["finish"] is None and chosen == "image" and not draft.labels:
            steps["finish"] = inferred_steps.build_probability_finish(facts, assumed)
    elif task == "tabular" and draft.preprocess is None:
        raise InvalidInputError("--task tabular needs --processing FILE, which tells of the columns.")
    elif task == "audio":
        raise InvalidInputError(
            "--task audio needs --processing FILE: at least prepare: {rate: 16000}, the samples a second of the graph."
        )
    elif task == "tensor":
        return msgspec.structs.replace(draft, task=task, preprocess=None, postprocess=None)
    else:
        return add_label_finish(draft, folder, facts, assumed)
    steps = classifier_outputs.complete_finish(steps, classifier)
    steps = inferred_steps.complete_steps(steps, facts, draft.labels, assumed)
    kind = (steps["prepare"] or {}).get("kind", "tensor")
    return convert_steps(draft, steps | {"task": task or kind}, file or folder)


def add_label_finish(draft: ManifestDraft, folder: Path, facts: GraphFacts, assumed: Assumptions) -> ManifestDraft:
    """Add a classification to a graph of tensors that has labels, so that callers get names.

    A model of a Triton repository stays as Triton serves it: its labels are for the classification extension alone.
    """
    if not draft.labels or draft.postprocess is not None or (folder / triton_repository.CONFIG).is_file():
        return draft
    finish = inferred_steps.build_label_finish(facts, draft.labels, assumed)
    return draft if finish is None else convert_steps(draft, {"finish": finish}, folder)


def convert_steps(draft: ManifestDraft, steps: Mapping[str, object], origin: Path) -> ManifestDraft:
    """Put steps into the draft; `InvalidInputError` if they do not read."""
    try:
        return msgspec.convert(msgspec.to_builtins(draft) | steps, ManifestDraft)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"{origin} tells of steps that cannot be taken: {exc}.") from exc


def read_processing_assets(draft: ManifestDraft, folder: Path) -> dict[str, FileContent]:
    """Read the files that the steps need, from beside the graph, and open them once in a process of their own."""
    if not isinstance(draft.preprocess, TextPreprocessing):
        return {}
    from pilotlight.processing import text

    content = read_file(folder / draft.preprocess.tokenizer)
    try:
        length = text.get_fixed_length(draft)
    except ModelRefusedError as exc:
        raise InvalidInputError(f"{folder} cannot be published as text: {exc}") from exc
    if failure := text_probe.find_tokenizer_failure(content, draft.preprocess, length):
        raise InvalidInputError(f"{folder} cannot be published as text: {failure}.")
    return {draft.preprocess.tokenizer: content}


def read_file(path: Path) -> bytes:
    """Read a file; raise `InvalidInputError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as exc:
        raise InvalidInputError(f"Cannot read {path}: {exc.strerror}.") from exc


def open_graph(path: Path) -> Session:
    """Open the graph as a handler opens it; raise `InvalidInputError` if it cannot be served."""
    try:
        return open_session(str(path))
    except ModelRefusedError as exc:
        raise InvalidInputError(f"{path} cannot be served: {exc}") from exc
