"""`pilotlight publish`: an ONNX file becomes a version."""

import getpass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import msgspec
import typer

from pilotlight.cli import processing
from pilotlight.cli.console import STORE, JsonOption, StoreOption, print_json, registry
from pilotlight.contracts import Draft, Precision, Task
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.registry import Content
from pilotlight.runtime.preparation import variant
from pilotlight.runtime.session import Session, open_session
from pilotlight.steps import Text


def publish(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The ONNX file; its weights may lie beside it.")],
    name: Annotated[str, typer.Option("--name", help="Of the model: letters, digits, dot, dash, underscore.")],
    task: Annotated[
        Task | None,
        typer.Option("--task", help="What callers send: the graph's tensors, PNG or JPEG files, texts, or columns."),
    ] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="A text file, one class per line.")] = None,
    steps: Annotated[
        Path | None,
        typer.Option(
            "--processing",
            metavar="FILE",
            help="JSON or YAML: the steps to prepare inputs and to finish outputs. Without it, --task image and text "
            "read the Hugging Face files beside PATH: preprocessor_config.json, tokenizer.json, config.json.",
        ),
    ] = None,
    precision: Annotated[Precision, typer.Option("--precision", help="Of the weights in the file.")] = "fp32",
    store: StoreOption = STORE,
    json: JsonOption = False,
) -> None:
    """Make an ONNX file the model's next version, and print its reference."""
    session = opened(path)
    with TemporaryDirectory() as folder:
        found, files = variant(path, f"model.{precision}.onnx", Path(folder))
        draft = Draft(
            name=name,
            inputs=session.inputs,
            outputs=session.outputs,
            labels=classes(labels, path.parent, task),
            variants={precision: found},
            serve=precision,
            by=getpass.getuser(),
        )
        draft = with_steps(draft, task, steps, path.parent, session)
        manifest = registry(store).publish(draft, files | assets(draft, path.parent))
    reference = f"{manifest.name}:{manifest.version}"
    print_json({"reference": reference, "store": store}) if json else typer.echo(reference)


def classes(file: Path | None, folder: Path, task: Task | None) -> tuple[str, ...]:
    """The labels in the publisher's file; else, for images and texts, those of the Hugging Face model."""
    if file is not None:
        return tuple(read(file).decode().splitlines())
    return processing.labels_of(folder) if task in {"image", "text"} else ()


def with_steps(draft: Draft, task: Task | None, file: Path | None, folder: Path, session: Session) -> Draft:
    """The draft with the steps of the publisher's file, or of the files beside the graph."""
    if file is not None:
        steps = processing.told(file, task)
    elif task in {"image", "text"}:
        steps = processing.found(folder, task, session, draft.labels)
    elif task == "tabular":
        raise InvalidInputError("--task tabular needs --processing FILE, which tells of the columns.")
    else:
        return draft
    steps = processing.completed(steps, session)
    kind = (steps["prepare"] or {}).get("kind", "tensor")
    try:
        return msgspec.convert(msgspec.to_builtins(draft) | steps | {"task": task or kind}, Draft)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"{file or folder} tells of steps that cannot be taken: {exc}.") from exc


def assets(draft: Draft, folder: Path) -> dict[str, Content]:
    """The files that the steps need, from beside the graph, opened once as a handler will open them."""
    if not isinstance(draft.prepare, Text):
        return {}
    from pilotlight.tasks import text

    content = read(folder / draft.prepare.tokenizer)
    try:
        text.opened(content, draft.prepare, text.fixed(draft))
    except ModelRefusedError as exc:
        raise InvalidInputError(f"{folder} cannot be published as text: {exc}") from exc
    return {draft.prepare.tokenizer: content}


def read(path: Path) -> bytes:
    """A file's bytes; `InvalidInputError` when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as exc:
        raise InvalidInputError(f"Cannot read {path}: {exc.strerror}.") from exc


def opened(path: Path) -> Session:
    """The graph, opened as a handler opens it; `InvalidInputError` when there is none that can be served."""
    read(path)
    try:
        return open_session(str(path))
    except ModelRefusedError as exc:
        raise InvalidInputError(f"{path} cannot be served: {exc}") from exc
