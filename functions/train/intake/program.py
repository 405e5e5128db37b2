"""A torch module with example inputs, or torch.export's .pt2 file, as a graph that gives the same answers."""

import inspect
import io
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from functions.train.data import Array
from functions.train.errors import ExportError
from functions.train.export import hushed, strip
from functions.train.intake.model import Feeds, Model, agreed
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.session import open_session

OPSET = 20
BATCH = "batch"
Shapes = tuple[dict[int, str], ...]


def export(module: nn.Module, inputs: Sequence[Tensor], word: str, target: Path) -> Model:
    """The module over these inputs, their first dimension free where the module lets it be."""
    frozen = deepcopy(module).cpu().eval().requires_grad_(False)
    names = parameters(frozen, len(inputs))
    example = tuple(repeated(one) for one in inputs)
    batched = all(one.ndim for one in inputs) and len({len(one) for one in inputs}) == 1
    shapes: Shapes | None = tuple({0: BATCH} for _ in inputs) if batched else None
    outputs = answers(frozen, inputs)
    translate(frozen, example if batched else tuple(inputs), names, tuple(outputs), shapes, target)
    feeds = [feed(names, inputs)] + ([feed(names, example)] if batched else [])
    parity = agreed(target, lambda given: answers(frozen, list(map(torch.from_numpy, given.values()))), tuple(feeds))
    return Model(
        graph=target, what=f"The torch module {type(module).__name__} of `{word}`", feeds=tuple(feeds), parity=parity
    )


def read(path: Path, target: Path) -> Model:
    """A .pt2 file, its free dimensions as they were exported; its example inputs are the first request."""
    refuse_pickles(path)
    try:
        program = torch.export.load(path)
    except Exception as exc:
        raise InvalidInputError(f"{path} is not a .pt2 file that this torch reads: {first_line(exc)}.") from exc
    given, extra = program.example_inputs or ((), {})
    if extra or not given or not all(isinstance(one, Tensor) for one in given):
        raise InvalidInputError(f"{path} must come with example inputs, all of them tensors and none by keyword.")
    module = program.module()
    names = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    outputs = answers(module, given)
    translate(program, None, names, tuple(outputs), None, target)
    request = feed(names, given)
    parity = agreed(target, lambda one: answers(module, list(map(torch.from_numpy, one.values()))), (request,))
    return Model(graph=target, what=f"The torch program `{path.name}`", feeds=(request,), parity=parity)


def refuse_pickles(path: Path) -> None:
    """Refuse what `torch.save` wrote, whatever it is called; programs hold weights and inputs as plain data."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as exc:
        raise InvalidInputError(f"{path} is not a .pt2 file, which is a zip archive: {exc}.") from exc
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names) and not any(
        "models/" in n for n in names
    ):
        raise InvalidInputError(f"{path} is a pickle in a zip archive, not a program of torch.export.save.")


def translate(
    module: nn.Module | torch.export.ExportedProgram,
    inputs: tuple[Tensor, ...] | None,
    names: Sequence[str],
    outputs: Sequence[str],
    shapes: Shapes | None,
    target: Path,
) -> None:
    """Write what torch's exporter makes of it; `ExportError` with the exporter's first line."""
    talk = io.StringIO()
    try:
        with hushed(talk), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*axis name", UserWarning)  # free dimensions of several inputs are one
            program = torch.onnx.export(
                module,
                inputs or (),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(names),
                output_names=list(outputs),
                dynamic_shapes=shapes,
            )
    except Exception as exc:  # the exporter raises its own and torch.export's
        raise ExportError(f"The model cannot be exported: {first_line(exc)}") from exc
    if program is None:
        raise ExportError(f"The exporter gave nothing back: {talk.getvalue()}")
    onnx.save(strip(program.model_proto), target)
    check_names(target, names)


def check_names(target: Path, names: Sequence[str]) -> None:
    """Refuse a graph that does not take the inputs that the module takes: the exporter drops those it does not use."""
    found = [spec.name for spec in open_session(str(target)).inputs]
    if found != list(names):
        raise ExportError(
            f"The exported graph takes {found}, the module {list(names)}; leave out what it does not use."
        )


def parameters(module: nn.Module, count: int) -> list[str]:
    """What the module calls its first inputs."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [one.name for one in inspect.signature(module.forward).parameters.values() if one.kind in kinds]
    return named[:count] if len(named) >= count else [f"input_{place}" for place in range(count)]


def repeated(tensor: Tensor) -> Tensor:
    """An example of two: the exporter takes a dimension of 1 for a constant."""
    return torch.cat([tensor, tensor]) if tensor.ndim and len(tensor) == 1 else tensor


def feed(names: Sequence[str], inputs: Sequence[Tensor]) -> Feeds:
    """Inputs by name."""
    return {name: np.ascontiguousarray(one.detach().numpy()) for name, one in zip(names, inputs, strict=True)}


def answers(module: Any, inputs: Sequence[Tensor]) -> Mapping[str, Array]:  # noqa: ANN401 - what torch calls a module
    """What the module answers, by name: its keys where it gives a mapping, else output, or output_0, output_1 ..."""
    with torch.no_grad():
        found = module(*inputs)
    if isinstance(found, Tensor):
        return {"output": found.numpy()}
    named = found if isinstance(found, Mapping) else {f"output_{place}": one for place, one in enumerate(found)}
    if not named or not all(isinstance(one, Tensor) for one in named.values()):
        raise InvalidInputError(f"The module answers with a {type(found).__name__}; it must be tensors.")
    return {str(name): one.numpy() for name, one in named.items()}


def first_line(error: Exception) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")
