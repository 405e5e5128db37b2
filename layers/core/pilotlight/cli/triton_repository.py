"""A model of a Triton repository: `<name>/config.pbtxt` and `<name>/<number>/model.onnx`.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_repository.html It only
reads.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotlight.contracts import label_file
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.contracts.names import is_version
from pilotlight.errors import InvalidInputError
from pilotlight.runtime import containment

CONFIG = "config.pbtxt"
TOKEN_PATTERN = re.compile(
    r"""\s+|\#[^\n]*|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<word>[\w.+-]+)|(?P<mark>[{}\[\]<>:,;])"""
)
DATATYPE_NAMES = {"TYPE_STRING": "BYTES"}  # all others are V2's after TYPE_
TritonConfig = dict[str, list[Any]]  # of a message: each field's values in order


@dataclass(frozen=True)
class TritonModel:
    """A model's folder, and the version that was named, if any."""

    folder: Path
    version: int | None = None


def find_triton_model(path: Path) -> TritonModel | None:
    """Find the model of which this is the folder, a version's folder or the repository; None if it is none."""
    if (path / CONFIG).is_file() or list_version_numbers(path):
        return TritonModel(path)
    if is_version(path.name) and (path.resolve().parent / CONFIG).is_file():
        return TritonModel(path.resolve().parent, int(path.name))
    models = [child for child in sorted(path.iterdir()) if (child / CONFIG).is_file()] if path.is_dir() else []
    if len(models) > 1:
        names = ", ".join(child.name for child in models)
        raise InvalidInputError(f"{path} is a repository of several models, {names}; name the folder of one.")
    return TritonModel(models[0]) if models else None


def list_version_numbers(folder: Path) -> list[int]:
    """List the numbers of the versions of a model that hold a graph."""
    return sorted(int(file.parent.name) for file in folder.glob("*/*.onnx") if is_version(file.parent.name))


def find_version_graph(model: TritonModel) -> tuple[Path, Path, tuple[str, ...]]:
    """Find the graph of the named or newest version; return it, the model's folder and the first output's labels."""
    config = parse_config(model.folder / CONFIG) if (model.folder / CONFIG).is_file() else {}
    check_config(model.folder, config)
    there = list_version_numbers(model.folder)
    if not there or model.version not in {None, *there}:
        missing = "any version" if model.version is None else f"version {model.version}"
        raise InvalidInputError(
            f"{model.folder} holds no ONNX graph of {missing}; it lies in a folder called 1, 2 or so."
        )
    name = get_first_value(config, "default_model_filename", "model.onnx")
    version = model.folder / str(model.version or there[-1])
    if not containment.is_contained(model.folder, f"{version.name}/{name}"):
        raise InvalidInputError(f"{model.folder / CONFIG} has the graph {name!r}, which is not a file of the model.")
    return version / name, model.folder, read_label_file(model.folder, config)


def check_config(folder: Path, config: TritonConfig) -> None:
    """Refuse a model that is not a single ONNX graph, or reshapes its tensors."""
    served = get_first_value(config, "backend", "") or get_first_value(config, "platform", "onnxruntime")
    if served not in {"onnxruntime", "onnxruntime_onnx"}:
        raise InvalidInputError(f"{folder / CONFIG} is of a {served} model; only ONNX graphs can be published.")
    for tensor in (*config.get("input", []), *config.get("output", [])):
        if not isinstance(tensor, dict):
            raise InvalidInputError(f"{folder / CONFIG} has the tensor {tensor!r}; it must be {{ name: ... }}.")
        if "reshape" in tensor:
            raise InvalidInputError(
                f"{folder / CONFIG} reshapes {get_first_value(tensor, 'name', '')!r}; put that into the graph."
            )


def check_signature(folder: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
    """Refuse a config with other tensors than the graph has."""
    file = folder / CONFIG
    config = parse_config(file) if file.is_file() else {}
    batched = parse_integer(file, "max_batch_size", get_first_value(config, "max_batch_size", "0")) > 0
    for key, specs in (("input", inputs), ("output", outputs)):
        specs_by_name = {spec.name: spec for spec in specs}
        for tensor in config.get(key, []):
            name, declared = get_first_value(tensor, "name", ""), parse_tensor_config(file, tensor, batched=batched)
            spec = specs_by_name.get(name)
            if spec is None:
                raise InvalidInputError(f"{file} has the {key} {name!r}, but the graph has {sorted(specs_by_name)}.")
            if spec.datatype != declared[0] or not is_compatible_shape(spec.v2_shape, declared[1]):
                actual = f"{spec.datatype} {spec.v2_shape}"
                raise InvalidInputError(
                    f"{file} has the {key} {name!r} as {declared[0]} {declared[1]}, the graph as {actual}."
                )


def parse_tensor_config(file: Path, tensor: TritonConfig, *, batched: bool) -> tuple[str, list[int]]:
    """Parse datatype and shape of a tensor of the config, with the batch if there is one."""
    kind = str(get_first_value(tensor, "data_type", ""))
    dims = [parse_integer(file, "dims", size) for size in tensor.get("dims", [])]
    return DATATYPE_NAMES.get(kind, kind.removeprefix("TYPE_")), [-1, *dims] if batched else dims


def parse_integer(file: Path, key: str, word: object) -> int:
    """Parse a whole number of the config."""
    try:
        return int(str(word))
    except ValueError as exc:
        raise InvalidInputError(f"{file} has {key}: {word}, which is no whole number.") from exc


def is_compatible_shape(shape: list[int], declared: list[int]) -> bool:
    """Return whether two shapes are equal wherever both have a fixed size."""
    pairs = zip(shape, declared, strict=False)
    return len(shape) == len(declared) and all(-1 in pair or pair[0] == pair[1] for pair in pairs)


def read_label_file(folder: Path, config: TritonConfig) -> tuple[str, ...]:
    """Read the lines of the first output's `label_filename`, which is beside the config."""
    name = next((get_first_value(tensor, "label_filename", "") for tensor in config.get("output", [])), "")
    if not name:
        return ()
    file = folder / name
    if not containment.is_contained(folder, name) or not file.is_file():
        raise InvalidInputError(f"{folder / CONFIG} has the labels {name!r}, which are not a file beside it.")
    return label_file.read_label_file(file)


def get_first_value(config: TritonConfig, key: str, default: str) -> str:
    """Return the first value of a field."""
    return str(next(iter(config.get(key, [])), default))


def parse_config(file: Path) -> TritonConfig:
    """Parse a message in protobuf's text format, without its types; raise `InvalidInputError` for an error in it."""
    tokens, place, source = list[str](), 0, label_file.read_text_file(file)
    while place < len(source):
        match = TOKEN_PATTERN.match(source, place)
        if match is None:
            raise InvalidInputError(f"{file} is not in protobuf's text format at {source[place : place + 20]!r}.")
        tokens += [match[0]] if match.lastgroup else []
        place = match.end()
    try:
        message, rest = parse_fields(tokens, 0)
    except IndexError as exc:
        raise InvalidInputError(f"{file} is not in protobuf's text format: it ends too early.") from exc
    if rest != len(tokens):
        raise InvalidInputError(f"{file} is not in protobuf's text format at {tokens[rest]!r}.")
    return message


def parse_fields(tokens: list[str], place: int) -> tuple[TritonConfig, int]:
    """Parse fields until the message ends, and return the place of what ends it."""
    message: TritonConfig = {}
    while place < len(tokens) and tokens[place] not in "}>":
        name, place = tokens[place], place + 1
        if tokens[place] == ":":
            place += 1
        values, place = parse_list(tokens, place) if tokens[place] == "[" else parse_value(tokens, place)
        message.setdefault(name, []).extend(values)
        if place < len(tokens) and tokens[place] in ",;":
            place += 1
    return message, place


def parse_list(tokens: list[str], place: int) -> tuple[list[Any], int]:
    """Parse the values of a list in brackets, and return the place after it."""
    items: list[Any] = []
    place += 1
    while tokens[place] != "]":
        if tokens[place] == ",":
            place += 1
            continue
        values, place = parse_value(tokens, place)
        items += values
    return items, place + 1


def parse_value(tokens: list[str], place: int) -> tuple[list[Any], int]:
    """Parse an identifier, a text or a message, and return the position after it."""
    token = tokens[place]
    if token in "{<":  # noqa: S105 - of protobuf text, not a password
        message, end = parse_fields(tokens, place + 1)
        tokens[end]
        return [message], end + 1
    return [token[1:-1] if token[0] in "\"'" else token], place + 1
