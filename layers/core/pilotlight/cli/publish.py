"""`pilotlight publish`: an ONNX file becomes a version."""

import getpass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from pilotlight.cli.console import STORE, JsonOption, StoreOption, print_json, registry
from pilotlight.contracts import Draft, Precision, Task
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.runtime.preparation import variant
from pilotlight.runtime.session import Session, open_session


def publish(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The ONNX file; its weights may lie beside it.")],
    name: Annotated[str, typer.Option("--name", help="Of the model: letters, digits, dot, dash, underscore.")],
    task: Annotated[Task, typer.Option("--task", help="tensor: arrays in, arrays out.")] = "tensor",
    labels: Annotated[Path | None, typer.Option("--labels", help="A text file, one class per line.")] = None,
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
            task=task,
            inputs=session.inputs,
            outputs=session.outputs,
            labels=tuple(read(labels).decode().splitlines()) if labels else (),
            variants={precision: found},
            serve=precision,
            by=getpass.getuser(),
        )
        manifest = registry(store).publish(draft, files)
    reference = f"{manifest.name}:{manifest.version}"
    print_json({"reference": reference, "store": store}) if json else typer.echo(reference)


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
