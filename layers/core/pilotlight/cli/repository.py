"""A model of a Triton repository: `<name>/config.pbtxt` and `<name>/<number>/model.onnx`.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_repository.html
It reads what is there, and never writes.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotlight.contracts.manifest import TensorSpec, is_version
from pilotlight.errors import InvalidInputError

CONFIG = "config.pbtxt"
TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<word>[\w.+-]+)|(?P<mark>[{}\[\]<>:,;])"""
)
TYPES = {"TYPE_STRING": "BYTES"}  # all others are V2's after TYPE_
Config = dict[str, list[Any]]  # of a message: each field's values in order


@dataclass(frozen=True)
class Model:
    """A model's folder, and which of its versions is meant, if one was named."""

    folder: Path
    version: int | None = None


def of(path: Path) -> Model | None:
    """The model in a folder: its own, one of its versions', or a repository's of one model; None when it is none."""
    if (path / CONFIG).is_file() or versions(path):
        return Model(path)
    if is_version(path.name) and (path.resolve().parent / CONFIG).is_file():
        return Model(path.resolve().parent, int(path.name))
    models = [child for child in sorted(path.iterdir()) if (child / CONFIG).is_file()] if path.is_dir() else []
    if len(models) > 1:
        names = ", ".join(child.name for child in models)
        raise InvalidInputError(f"{path} is a repository of several models, {names}; name the folder of one.")
    return Model(models[0]) if models else None


def versions(folder: Path) -> list[int]:
    """The numbers of the versions of a model that hold a graph."""
    return sorted(int(file.parent.name) for file in folder.glob("*/*.onnx") if is_version(file.parent.name))


def graph(model: Model) -> tuple[Path, Path, tuple[str, ...]]:
    """The graph of the version that is meant, else of the newest; the model's folder; the first output's labels."""
    config = parse(model.folder / CONFIG) if (model.folder / CONFIG).is_file() else {}
    check(model.folder, config)
    there = versions(model.folder)
    if not there or model.version not in {None, *there}:
        wanted = "any version" if model.version is None else f"version {model.version}"
        raise InvalidInputError(
            f"{model.folder} holds no ONNX graph of {wanted}; it lies in a folder called 1, 2 or so."
        )
    name = first(config, "default_model_filename", "model.onnx")
    version = model.folder / str(model.version or there[-1])
    if not (version / name).resolve().is_relative_to(model.folder.resolve()):
        raise InvalidInputError(f"{model.folder / CONFIG} has the graph {name!r}, which is not a file of the model.")
    return version / name, model.folder, labels(model.folder, config)


def check(folder: Path, config: Config) -> None:
    """Refuse what is no ONNX graph alone, or is called otherwise than its graph."""
    served = first(config, "backend", "") or first(config, "platform", "onnxruntime")
    if served not in {"onnxruntime", "onnxruntime_onnx"}:
        raise InvalidInputError(f"{folder / CONFIG} is of a {served} model; only ONNX graphs can be published.")
    for tensor in (*config.get("input", []), *config.get("output", [])):
        if not isinstance(tensor, dict):
            raise InvalidInputError(f"{folder / CONFIG} has the tensor {tensor!r}; it must be {{ name: ... }}.")
        if "reshape" in tensor:
            raise InvalidInputError(
                f"{folder / CONFIG} reshapes {first(tensor, 'name', '')!r}; put that into the graph."
            )


def agree(folder: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
    """Refuse a config that promises callers other tensors than the graph has."""
    file = folder / CONFIG
    config = parse(file) if file.is_file() else {}
    batched = whole(file, "max_batch_size", first(config, "max_batch_size", "0")) > 0
    for key, specs in (("input", inputs), ("output", outputs)):
        known = {spec.name: spec for spec in specs}
        for tensor in config.get(key, []):
            name, promised = first(tensor, "name", ""), told(file, tensor, batched=batched)
            spec = known.get(name)
            if spec is None:
                raise InvalidInputError(f"{file} has the {key} {name!r}, but the graph has {sorted(known)}.")
            if spec.datatype != promised[0] or not fits(spec.free_shape, promised[1]):
                found = f"{spec.datatype} {spec.free_shape}"
                raise InvalidInputError(
                    f"{file} has the {key} {name!r} as {promised[0]} {promised[1]}, the graph as {found}."
                )


def told(file: Path, tensor: Config, *, batched: bool) -> tuple[str, list[int]]:
    """Datatype and shape that a config tells of a tensor, with the batch if there is one."""
    kind = str(first(tensor, "data_type", ""))
    dims = [whole(file, "dims", size) for size in tensor.get("dims", [])]
    return TYPES.get(kind, kind.removeprefix("TYPE_")), [-1, *dims] if batched else dims


def whole(file: Path, key: str, word: object) -> int:
    """A whole number of the config."""
    try:
        return int(str(word))
    except ValueError as exc:
        raise InvalidInputError(f"{file} has {key}: {word}, which is no whole number.") from exc


def fits(shape: list[int], promised: list[int]) -> bool:
    """Whether two shapes are the same where both say something."""
    pairs = zip(shape, promised, strict=False)
    return len(shape) == len(promised) and all(-1 in pair or pair[0] == pair[1] for pair in pairs)


def labels(folder: Path, config: Config) -> tuple[str, ...]:
    """The lines of the first output's `label_filename`, which lies beside the config."""
    name = next((first(tensor, "label_filename", "") for tensor in config.get("output", [])), "")
    if not name:
        return ()
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()) or not file.is_file():
        raise InvalidInputError(f"{folder / CONFIG} has the labels {name!r}, which are not a file beside it.")
    return lines(file)


def lines(file: Path) -> tuple[str, ...]:
    """The lines of a text file, of labels say."""
    return tuple(text(file).splitlines())


def text(file: Path) -> str:
    """A file's text; `InvalidInputError` when it cannot be read, or is in another encoding than UTF-8."""
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInputError(f"{file} cannot be read as text: {exc}.") from exc


def first(config: Config, key: str, default: str) -> str:
    """The first value of a field."""
    return str(next(iter(config.get(key, [])), default))


def parse(file: Path) -> Config:
    """A message in protobuf's text format, without its types; `InvalidInputError` says where it goes wrong."""
    tokens, place, source = list[str](), 0, text(file)
    while place < len(source):
        found = TOKEN.match(source, place)
        if found is None:
            raise InvalidInputError(f"{file} is not in protobuf's text format at {source[place : place + 20]!r}.")
        tokens += [found[0]] if found.lastgroup else []
        place = found.end()
    try:
        message, rest = fields(tokens, 0)
    except IndexError as exc:
        raise InvalidInputError(f"{file} is not in protobuf's text format: it ends too early.") from exc
    if rest != len(tokens):
        raise InvalidInputError(f"{file} is not in protobuf's text format at {tokens[rest]!r}.")
    return message


def fields(tokens: list[str], place: int) -> tuple[Config, int]:
    """Fields until the message ends, and the place of what ends it."""
    message: Config = {}
    while place < len(tokens) and tokens[place] not in "}>":
        name, place = tokens[place], place + 1
        if tokens[place] == ":":
            place += 1
        values, place = several(tokens, place) if tokens[place] == "[" else one(tokens, place)
        message.setdefault(name, []).extend(values)
        if place < len(tokens) and tokens[place] in ",;":
            place += 1
    return message, place


def several(tokens: list[str], place: int) -> tuple[list[Any], int]:
    """The values of a list in brackets, and the place after it."""
    found: list[Any] = []
    place += 1
    while tokens[place] != "]":
        if tokens[place] == ",":
            place += 1
            continue
        values, place = one(tokens, place)
        found += values
    return found, place + 1


def one(tokens: list[str], place: int) -> tuple[list[Any], int]:
    """A word, a text or a message, and the place after it."""
    found = tokens[place]
    if found in "{<":
        message, end = fields(tokens, place + 1)
        tokens[end]
        return [message], end + 1
    return [found[1:-1] if found[0] in "\"'" else found], place + 1
