"""`pilotlight predict`: one prediction of a running server."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from pilotlight.api import csv_table
from pilotlight.api.text_encoding import convert_to_utf8
from pilotlight.cli.console import RESULTS, JsonOption, UrlOption, open_client
from pilotlight.cli.known_servers import find_default_url
from pilotlight.client.client import InferResponse, ModelMetadata, Tensor, build_tensors
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import InvalidInputError

EXAMPLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".wav", ".flac", ".ogg", ".mp3")  # of files that are one example
# How JSON begins, in UTF-8 with or without a mark and in UTF-16; sounds and images begin otherwise.
JSON_STARTS = (*(b"%c" % sign for sign in b'{["-0123456789'), b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
MAX_SHOWN_VALUES = 16  # values of an output; what has more is cut to as many
MAX_SHOWN_CHARACTERS = 80  # of a text; a mask is a file in base64
BOX_SIDES = 4


def predict(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model: name, name:3 or name@alias.")],
    file: Annotated[
        Path,
        typer.Option(
            "--input",
            help="A photograph (.png, .jpg, .webp), a sound (.wav, .flac, .ogg, .mp3), texts, one on each line (.txt), "
            "a table with a head (.csv), or JSON: a V2 infer request, or just the data of a model with one input.",
        ),
    ],
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """Send one prediction and show the answer."""
    reference = ModelReference.parse(name)
    version = str(reference.version) if reference.version is not None else reference.alias
    with open_client(url or find_default_url()) as client:
        body = build_infer_request(read_input_file(file), file, client.get_metadata(reference.name, version))
        answer = client.infer_json(reference.name, body, version=version)
    if json:
        typer.echo(answer.decode())
    else:
        print_answer(msgspec.json.decode(answer, type=InferResponse))


def read_input_file(file: Path) -> bytes:
    """Read a file; raise `InvalidInputError` if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as exc:
        raise InvalidInputError(f"Cannot read {file}: {exc.strerror}.") from exc


def build_infer_request(content: bytes, file: Path, model: ModelMetadata) -> bytes:
    """Build the V2 request of a file, by its suffix."""
    suffix = file.suffix.lower()
    if suffix in EXAMPLE_SUFFIXES:
        inputs = build_tensors(content, model)
    elif suffix == ".txt":
        inputs = build_tensors([line for line in decode_text(content, file).splitlines() if line.strip()], model)
    elif suffix == ".csv":
        inputs = build_tensors(parse_csv_columns(decode_text(content, file), file), model)
    elif may_be_json(content):
        return build_request_from_json(content, file, model)
    else:
        inputs = build_tensors(content, model)  # whose server says what it is, if it takes no such file
    return msgspec.json.encode({"inputs": inputs})


def may_be_json(content: bytes) -> bool:
    """Return whether a file of any name begins as JSON does: with a value that V2 or an example may be."""
    return not content.strip() or content.lstrip().startswith(JSON_STARTS)


def decode_text(content: bytes, file: Path) -> str:
    """Decode the text of a file, without the byte order mark that some editors write."""
    try:
        return convert_to_utf8(content, "").decode()
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f"{file} is not UTF-8: {exc.reason} at byte {exc.start}.") from exc


def parse_csv_columns(content: str, file: Path) -> dict[str, list[str | None]]:
    """Parse the columns of a CSV file by the names in its first line; an empty cell is None."""
    try:
        head, rows = csv_table.parse_table(content.encode())
    except InvalidInputError as exc:
        raise InvalidInputError(f"{file}: {exc}") from exc
    if "" in head and head.index("") in (0, len(head) - 1) and len(head) > 1:
        place = head.index("")  # of the row names of R and pandas, or what a comma at the end of each line makes
        head, rows = head[:place] + head[place + 1 :], [row[:place] + row[place + 1 :] for row in rows]
    if not rows or len(set(head)) < len(head):
        raise InvalidInputError(f"{file} must have a line of different column names, then at least one record.")
    for number, row in enumerate(rows, 1):
        if len(row) != len(head):
            raise InvalidInputError(f"{file}: record {number} has {len(row)} cells, but there are {len(head)} columns.")
    return {name.strip(): [row[place] or None for row in rows] for place, name in enumerate(head)}


def build_request_from_json(content: bytes, file: Path, model: ModelMetadata) -> bytes:
    """Build the V2 request of a JSON file: the request itself, or the data of it; one example may lack its batch."""
    try:
        content = convert_to_utf8(content, "")
        data = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidInputError(f"{file} is not JSON: {exc}.") from exc
    if isinstance(data, dict) and "inputs" in data:
        return content
    if len(model.inputs) > 1 and all(spec.shape == [-1] for spec in model.inputs):
        return msgspec.json.encode({"inputs": build_tensors(convert_records_to_columns(data, file, model), model)})
    if len(model.inputs) != 1 or not isinstance(data, list):
        names = [spec.name for spec in model.inputs]
        raise InvalidInputError(f"{file} must be a V2 infer request: {{'inputs': [...]}} with {names}.")
    spec = model.inputs[0]
    shape = get_nested_shape(data)
    if len(shape) == len(spec.shape) - 1 and spec.shape[0] == -1:
        data, shape = [data], [1, *shape]
    return msgspec.json.encode({"inputs": [Tensor(spec.name, spec.datatype, shape, data)]})


def convert_records_to_columns(data: Any, file: Path, model: ModelMetadata) -> dict[str, list[Any]]:  # noqa: ANN401 - any JSON
    """Convert records by name, or rows in the model's order, to columns; a single one may lack its list."""
    names = [spec.name for spec in model.inputs]
    rows = data if isinstance(data, list) and data and isinstance(data[0], list | dict) else [data]
    if isinstance(data, dict) and all(isinstance(values, list) for values in data.values()):
        return data
    if all(isinstance(row, dict) and set(row) == set(rows[0]) for row in rows):
        return {name: [row[name] for row in rows] for name in rows[0]}
    if all(isinstance(row, list) and len(row) == len(names) for row in rows):
        return {name: [row[place] for row in rows] for place, name in enumerate(names)}
    raise InvalidInputError(f"{file} must hold records, rows or columns of {names}, or a V2 infer request.")


def get_nested_shape(data: Any) -> list[int]:  # noqa: ANN401 - any JSON
    """Return the shape of nested lists, by their first elements; the server checks the others."""
    return [len(data), *get_nested_shape(data[0])] if isinstance(data, list) and data else []


def print_answer(answer: InferResponse) -> None:
    """Print an answer: the version that gave it, then a line for each example's classes or for each output."""
    RESULTS.print(f"{answer.model_name}:{answer.model_version}", style="bold")
    for line in format_outputs(answer.outputs):
        RESULTS.print(line, markup=False, soft_wrap=True)


def format_outputs(outputs: list[Tensor]) -> list[str]:
    """Format a line for each example's classes, for each object, or for each output."""
    if is_classification(outputs):
        return format_classes(outputs)
    return format_objects(outputs) if is_detection(outputs) else list(map(format_output, outputs))


def is_detection(outputs: list[Tensor]) -> bool:
    """Return whether the answer is labels, scores and boxes of objects, and their number in each image."""
    kinds = [(output.datatype, len(output.shape)) for output in outputs]
    return kinds == [("BYTES", 2), ("FP32", 2), ("FP32", 3), ("INT32", 1)] and outputs[2].shape[2] == BOX_SIDES


def format_objects(outputs: list[Tensor]) -> list[str]:
    """Format a line for each object: its image if there are several, label, score and box."""
    labels, scores, boxes, counts = (output.data for output in outputs)
    width = outputs[0].shape[1]
    lines = []
    for image, count in enumerate(counts):
        head = f"image {image}: " if len(counts) > 1 else ""
        for place in range(image * width, image * width + count):
            sides = ", ".join(f"{side:.0f}" for side in boxes[BOX_SIDES * place : BOX_SIDES * (place + 1)])
            lines.append(f"{head}{labels[place]} {scores[place]:.2%} at {sides} (left, top, right, bottom)")
        if not count:
            lines.append(f"{head}no object")
    return lines


def is_classification(outputs: list[Tensor]) -> bool:
    """Return whether the answer is labels and their probabilities."""
    return [output.datatype for output in outputs] == ["BYTES", "FP32"] and outputs[0].shape == outputs[1].shape


def format_classes(outputs: list[Tensor]) -> list[str]:
    """Format a line for each example: its labels, best first, each with its probability."""
    labels, probabilities = (output.data for output in outputs)
    pairs = [
        f"{label} {'NaN' if probability is None else f'{probability:.2%}'}"
        for label, probability in zip(labels, probabilities, strict=True)
    ]
    width = outputs[0].shape[-1] if len(outputs[0].shape) > 1 else 1
    return [", ".join(pairs[place : place + width]) for place in range(0, len(pairs), width)]


def format_output(output: Tensor) -> str:
    """Format an output: its name, datatype and shape, and its first values."""
    first_values = [
        f"{value:.6g}" if isinstance(value, float) else shorten_text(str(value))
        for value in output.data[:MAX_SHOWN_VALUES]
    ]
    cut = f" ... {len(output.data):,} values, --json shows all" if len(output.data) > MAX_SHOWN_VALUES else ""
    return f"{output.name} {output.datatype} {list(output.shape)}: {', '.join(first_values)}{cut}"


def shorten_text(text: str) -> str:
    """Return a text that is not too long for a line."""
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}... ({len(text):,} characters)"
