"""`pilotlight predict`: one prediction from a running server."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from pilotlight.cli.console import RESULTS, URL, JsonOption, UrlOption
from pilotlight.client import Client, Inference, ModelMetadata, Tensor
from pilotlight.contracts import Reference
from pilotlight.errors import InvalidInputError


def predict(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model: name, name:3 or name@alias.")],
    file: Annotated[
        Path,
        typer.Option("--input", help="JSON: a V2 infer request, or just the data of a model with one input."),
    ],
    url: UrlOption = URL,
    json: JsonOption = False,
) -> None:
    """Send one prediction and show the answer."""
    reference = Reference.parse(name)
    version = str(reference.version) if reference.version is not None else reference.alias
    with Client(url) as client:
        body = request(read(file), file, client.metadata(reference.name, version))
        answer = client.infer_json(reference.name, body, version=version)
    if json:
        typer.echo(answer.decode())
    else:
        show(msgspec.json.decode(answer, type=Inference))


def read(file: Path) -> Any:  # noqa: ANN401 - any JSON
    """The file's JSON; `InvalidInputError` when there is none."""
    try:
        return msgspec.json.decode(file.read_bytes())
    except OSError as exc:
        raise InvalidInputError(f"Cannot read {file}: {exc.strerror}.") from exc
    except msgspec.DecodeError as exc:
        raise InvalidInputError(f"{file} is not JSON: {exc}.") from exc


def request(content: Any, file: Path, model: ModelMetadata) -> bytes:  # noqa: ANN401 - any JSON
    """The V2 request that the file is, or that its bare data becomes; one example may come without its batch."""
    if isinstance(content, dict) and "inputs" in content:
        return msgspec.json.encode(content)
    if len(model.inputs) != 1 or not isinstance(content, list):
        names = [spec.name for spec in model.inputs]
        raise InvalidInputError(f"{file} must be a V2 infer request: {{'inputs': [...]}} with {names}.")
    spec = model.inputs[0]
    shape = shape_of(content)
    if len(shape) == len(spec.shape) - 1 and spec.shape[0] == -1:
        content, shape = [content], [1, *shape]
    return msgspec.json.encode({"inputs": [Tensor(spec.name, spec.datatype, shape, content)]})


def shape_of(data: Any) -> list[int]:  # noqa: ANN401 - any JSON
    """The shape of nested lists, by their first elements; the server checks the others."""
    return [len(data), *shape_of(data[0])] if isinstance(data, list) and data else []


def show(answer: Inference) -> None:
    """The answer for people: the version that gave it, and each output's values."""
    RESULTS.print(f"{answer.model_name}:{answer.model_version}", style="bold")
    for output in answer.outputs:
        values = ", ".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in output.data)
        RESULTS.print(f"{output.name} {output.datatype} {list(output.shape)}: {values}", markup=False, soft_wrap=True)
