"""`pilotlight publish`: publish a model of any kind as a version.

A graph that is published as it is needs neither torch nor onnx; `cli.model_conversion` converts other models.
"""

import getpass
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import msgspec
import typer

from pilotlight.cli import capture_policy, model_conversion, processing_steps, triton_repository
from pilotlight.cli.console import ERRORS, STORE, JsonOption, StoreOption, open_registry, print_json
from pilotlight.cli.graph_source import GraphSource, locate_graph
from pilotlight.contracts.capture_policy import CaptureExtent
from pilotlight.contracts.codec import decode_document, encode_document
from pilotlight.contracts.manifest import ManifestDraft, Precision, Task, TensorSpec, Variant
from pilotlight.contracts.names import check_name
from pilotlight.contracts.processing import TextPreprocessing
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.gate import graph_probe, text_probe
from pilotlight.registry.registry import FileContent
from pilotlight.runtime import golden_recorder, onnx_header
from pilotlight.runtime.cost_measurement import measure_request_cost
from pilotlight.runtime.golden import GoldenDocument
from pilotlight.runtime.graph_optimization import build_variant
from pilotlight.runtime.session import Session, open_session

Quantize = Literal["auto", "int8", "int4", "none"]
PreparedDraft = tuple[ManifestDraft, dict[str, FileContent], Session]

# What can be written about a graph that is published as it is, without measuring it.
CARD_TEMPLATE = """\
# {name}

The ONNX graph `{file}`, opset {opset}, published as it is; it was not trained here. Its weights are served in {serve}.

## Input and output of the graph

|  | tensor | datatype | shape |
| --- | --- | --- | --- |
{signature}

## Results

The graph has {size:,.1f} kB. {golden}

## Limitations

- Nothing is known here of how good its answers are: no evaluation data was given.
"""


def publish(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="An ONNX file; a folder with one; a Triton model's folder; a Hugging Face checkpoint's; a .pt2 file; "
            "or file.py:NAME, a function that gives a torch module and example inputs, or a scikit-learn estimator: "
            "that file is run.",
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
        typer.Option("--evaluation", metavar="FILE", help="npz: the graph's inputs by name, and the right answers."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", metavar="FILE", help="npz: the graph's inputs by name.")
    ] = None,
    steps: Annotated[
        Path | None,
        typer.Option(
            "--processing",
            metavar="FILE",
            help="JSON or YAML: the steps to prepare inputs and to finish outputs. Without it, --task image and text "
            "read the Hugging Face files beside PATH: preprocessor_config.json, tokenizer.json, config.json.",
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
    store: StoreOption = STORE,
    json: JsonOption = False,
) -> None:
    """Make a model the next version of its name, and print its reference."""
    check_name(name, "model name")
    source = locate_graph(path)
    if source is not None:
        graph_probe.check_graph_runs(source.graph)
    options = {
        "--name": name, "--task": task, "--labels": labels,
        "--quantize": quantize, "--evaluation": evaluation, "--calibration": calibration,
    }  # fmt: skip
    with TemporaryDirectory(prefix="pilotlight-publish-") as work_folder:
        draft, files, session = prepare_draft(path, source, options, precision, Path(work_folder))
        folder = source.folder if source else path if path.is_dir() else path.parent
        class_labels = (
            choose_labels(labels, folder, task or draft.task) or (source.labels if source else ()) or draft.labels
        )
        draft = add_processing_steps(msgspec.structs.replace(draft, labels=class_labels), task, steps, folder, session)
        draft, profile_files = capture_policy.add_feature_profile(
            capture_policy.apply_capture_policy(draft, capture, mask), evaluation, session
        )
        manifest = open_registry(store).publish_version(
            draft, files | read_processing_assets(draft, folder) | profile_files
        )
    reference = f"{manifest.name}:{manifest.version}"
    print_json({"reference": reference, "store": store}) if json else typer.echo(reference)


def prepare_draft(
    path: Path, source: GraphSource | None, options: Mapping[str, object], precision: Precision, folder: Path
) -> PreparedDraft:
    """Build the draft of an existing graph, or of what PATH is converted to."""
    needs_conversion = any(options[name] for name in ("--quantize", "--evaluation", "--calibration"))
    if source is None or needs_conversion:
        return convert_to_graph(source.graph if source else path, options, precision, folder)
    return build_graph_draft(source, str(options["--name"]), precision, folder)


def build_graph_draft(source: GraphSource, name: str, precision: Precision, folder: Path) -> PreparedDraft:
    """Build the draft of an existing graph, opened as a handler opens it; new files are written to `folder`."""
    session = open_graph(source.graph)
    triton_repository.check_signature(source.folder, session.inputs, session.outputs)
    served_variant, files = build_variant(source.graph, f"model.{precision}.onnx", folder)
    golden = record_golden_requests(source.graph, precision, session)
    draft = ManifestDraft(
        name=name,
        inputs=session.inputs,
        outputs=session.outputs,
        variants={precision: served_variant},
        serve=precision,
        opset=onnx_header.read_onnx_header(source.graph).opsets.get("", 0) or None,
        golden="golden.json" if golden is not None else None,
        request_cost=measure_request_cost(source.graph, golden),
        by=getpass.getuser(),
    )
    documents = {"model-card.md": format_graph_card(draft, source.graph).encode()}
    if golden is not None:
        documents["golden.json"] = encode_document(golden)
    return draft, {**files, **documents}, session


def format_graph_card(draft: ManifestDraft, graph: Path) -> str:
    """Format the model card, `model-card.md`."""
    rows = [format_tensor_row("in", spec) for spec in draft.inputs] + [
        format_tensor_row("out", spec) for spec in draft.outputs
    ]
    made_up = "Golden requests, made up within its signature, were recorded and repeated."
    return CARD_TEMPLATE.format(
        name=draft.name,
        file=graph.name,
        opset=draft.opset or "unknown",
        serve=draft.serve,
        signature="\n".join(rows),
        size=graph.stat().st_size / 1000,
        golden=made_up if draft.golden else "It has no golden requests.",
    )


def format_tensor_row(direction: str, spec: TensorSpec) -> str:
    """Format a tensor as a row of the table."""
    return f"| {direction} | `{spec.name}` | {spec.datatype} | `[{', '.join(map(str, spec.shape))}]` |"


def record_golden_requests(graph: Path, precision: Precision, session: Session) -> GoldenDocument | None:
    """Record golden requests, made up within the signature; None if the graph rejects or does not repeat them."""
    golden = golden_recorder.record_golden_requests(graph, precision, golden_recorder.generate_feeds(session))
    if golden is None:
        ERRORS.print(
            "No golden requests are recorded: the graph answers no made-up request, or not with the same finite numbers"
            " twice. Nothing will tell that it computes wrongly one day; --evaluation brings requests of yours.",
            style="yellow",
            soft_wrap=True,
        )
    return golden


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
    return draft, {**files, **new_files}, session


def choose_labels(file: Path | None, folder: Path, task: Task | None) -> tuple[str, ...]:
    """Choose the labels of the publisher's file; else, for images and texts, those of the Hugging Face model."""
    if file is not None:
        return triton_repository.read_lines(file)
    return processing_steps.read_labels(folder) if task in {"image", "text"} else ()


def add_processing_steps(
    draft: ManifestDraft, task: Task | None, file: Path | None, folder: Path, session: Session
) -> ManifestDraft:
    """Add the steps of the publisher's file, or of the files beside the graph, to the draft."""
    if file is not None:
        steps = processing_steps.read_processing_file(file, task)
    elif (task or draft.task) in {"image", "text"}:
        task = task or draft.task
        steps = processing_steps.read_hugging_face_steps(folder, task, session, draft.labels)
    elif task == "tabular" and draft.preprocess is None:
        raise InvalidInputError("--task tabular needs --processing FILE, which tells of the columns.")
    elif task == "audio":
        raise InvalidInputError(
            "--task audio needs --processing FILE: at least prepare: {rate: 16000}, the samples a second of the graph."
        )
    elif task == "tensor":
        return msgspec.structs.replace(draft, task=task, preprocess=None, postprocess=None)
    else:
        return draft
    steps = processing_steps.complete_steps(steps, session)
    kind = (steps["prepare"] or {}).get("kind", "tensor")
    try:
        return msgspec.convert(msgspec.to_builtins(draft) | steps | {"task": task or kind}, ManifestDraft)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"{file or folder} tells of steps that cannot be taken: {exc}.") from exc


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
    read_file(path)
    try:
        return open_session(str(path))
    except ModelRefusedError as exc:
        raise InvalidInputError(f"{path} cannot be served: {exc}") from exc
