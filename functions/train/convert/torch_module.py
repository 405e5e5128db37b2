"""Convert a torch module with example inputs, or torch.export's .pt2 file, to a graph that gives the same answers."""

import contextlib
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

from functions.train.convert.converted_model import ConvertedModel, measure_parity
from functions.train.data import Array
from functions.train.errors import ExportError
from functions.train.export.graph_metadata import strip_metadata
from functions.train.export.onnx_export import format_root_cause, silence_exporter
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.golden_recorder import Feeds
from pilotlight.runtime.session import open_session

OPSET = 20
BATCH_DIMENSION = "batch"
DynamicShapes = tuple[dict[int, str] | tuple[dict[int, str], ...], ...]  # by input; a starred parameter is one


def convert_module(module: nn.Module, inputs: Sequence[Tensor], source_name: str, target: Path) -> ConvertedModel:
    """Convert the module, traced with these inputs; their first dimension becomes free if the module allows it."""
    frozen = prepare_module(module, inputs, source_name)
    names = get_input_names(frozen, len(inputs))
    example = tuple(repeat_single_example(one) for one in inputs)
    batched = all(one.ndim for one in inputs) and len({len(one) for one in inputs}) == 1
    shapes = build_dynamic_shapes(frozen, len(inputs)) if batched else None
    outputs = run_module(frozen, inputs)
    if duplicates := [name for name in outputs if name in names]:
        raise InvalidInputError(
            f"{source_name} has both an input and an answer called {duplicates[0]!r}; call one otherwise."
        )
    write_onnx(frozen, example if batched else tuple(inputs), names, tuple(outputs), shapes, target)
    feeds = [build_feed(names, inputs)] + ([build_feed(names, example)] if batched else [])
    parity = measure_parity(
        target, lambda given: run_module(frozen, list(map(torch.from_numpy, given.values()))), tuple(feeds)
    )
    return ConvertedModel(
        graph=target,
        description=f"The torch module {type(module).__name__} of `{source_name}`",
        feeds=tuple(feeds),
        parity=parity,
    )


def prepare_module(module: nn.Module, inputs: Sequence[Tensor], source_name: str) -> nn.Module:
    """Copy the module for export; `InvalidInputError` for what the exporter or onnxruntime does not support."""
    original = getattr(module, "_orig_mod", module)  # the argument of torch.compile
    if isinstance(original, torch.jit.ScriptModule):
        raise InvalidInputError(
            f"{source_name} gives TorchScript, which is not exported; give the module that it is of."
        )
    if torch.bfloat16 in {one.dtype for one in (*original.parameters(), *inputs)}:
        raise InvalidInputError(
            f"{source_name} computes in bfloat16, for which onnxruntime lacks most operators on a CPU; call .float() "
            "on the "
            "module and its example inputs."
        )
    try:
        return deepcopy(original).cpu().eval().requires_grad_(False)
    except Exception as exc:  # a module may have attributes of any kind
        raise InvalidInputError(
            f"{source_name}, a {type(original).__name__}, cannot be copied: {format_root_cause(exc)}."
        ) from exc


def build_dynamic_shapes(module: nn.Module, count: int) -> DynamicShapes:
    """Make each input's first dimension free; for torch, the inputs of a starred parameter, `*inputs`, are one."""
    each: list[dict[int, str]] = [{0: BATCH_DIMENSION}] * count
    named = len(get_positional_names(module))
    starred = any(one.kind is one.VAR_POSITIONAL for one in inspect.signature(module.forward).parameters.values())
    return (*each[:named], tuple(each[named:])) if starred and count > named else tuple(each)


def convert_pt2_file(path: Path, target: Path) -> ConvertedModel:
    """Convert a .pt2 file with the free dimensions of its export; its example inputs are the first request."""
    refuse_pickles(path)
    try:
        program = torch.export.load(path)
    except Exception as exc:
        raise InvalidInputError(f"{path} is not a .pt2 file that this torch reads: {format_root_cause(exc)}.") from exc
    example_inputs, extra = program.example_inputs or ((), {})
    if extra or not example_inputs or not all(isinstance(one, Tensor) for one in example_inputs):
        raise InvalidInputError(f"{path} must come with example inputs, all of them tensors and none by keyword.")
    module = program.module()
    names = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    outputs = run_module(module, example_inputs)
    write_onnx(program, None, names, tuple(outputs), None, target)
    request = build_feed(names, example_inputs)
    parity = measure_parity(
        target, lambda one: run_module(module, list(map(torch.from_numpy, one.values()))), (request,)
    )
    return ConvertedModel(graph=target, description=f"The torch program `{path.name}`", feeds=(request,), parity=parity)


def refuse_pickles(path: Path) -> None:
    """Refuse a file of `torch.save`, whatever its suffix; programs contain weights and inputs as plain data."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as exc:
        raise InvalidInputError(f"{path} is not a .pt2 file, which is a zip archive: {exc}.") from exc
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names) and not any(
        "models/" in n for n in names
    ):
        raise InvalidInputError(f"{path} is a pickle in a zip archive, not a program of torch.export.save.")


def write_onnx(
    module: nn.Module | torch.export.ExportedProgram,
    inputs: tuple[Tensor, ...] | None,
    names: Sequence[str],
    outputs: Sequence[str],
    shapes: DynamicShapes | None,
    target: Path,
) -> None:
    """Write the graph of torch's exporter; `ExportError` with the exporter's first line."""
    exporter_output = io.StringIO()
    try:
        with silence_exporter(exporter_output), contextlib.redirect_stderr(exporter_output), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*axis name", UserWarning)  # the same free dimension in several inputs
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
        raise ExportError(f"The model cannot be exported: {format_root_cause(exc)}.") from exc
    if program is None:
        raise ExportError(f"The exporter gave nothing back: {exporter_output.getvalue()}")
    onnx.save(strip_metadata(program.model_proto), target)
    check_graph_inputs(target, names)


def check_graph_inputs(target: Path, names: Sequence[str]) -> None:
    """Refuse a graph whose inputs differ from the module's: the exporter drops inputs that are not used."""
    graph_names = [spec.name for spec in open_session(str(target)).inputs]
    if graph_names != list(names):
        raise ExportError(
            f"The exported graph takes {graph_names}, the module {list(names)}; leave out what it does not use."
        )


def get_input_names(module: nn.Module, count: int) -> list[str]:
    """Return the module's names of its first inputs."""
    named = get_positional_names(module)
    return named[:count] if len(named) >= count else [f"input_{place}" for place in range(count)]


def get_positional_names(module: nn.Module) -> list[str]:
    """Return the names of all inputs that have one."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in inspect.signature(module.forward).parameters.values() if one.kind in kinds]


def repeat_single_example(tensor: Tensor) -> Tensor:
    """Repeat a single example: the exporter takes a dimension of 1 for a constant."""
    return torch.cat([tensor, tensor]) if tensor.ndim and len(tensor) == 1 else tensor


def build_feed(names: Sequence[str], inputs: Sequence[Tensor]) -> Feeds:
    """Build a feed: inputs by name."""
    return {
        name: np.ascontiguousarray(to_array(one, f"takes {name!r}")) for name, one in zip(names, inputs, strict=True)
    }


def to_array(tensor: Tensor, does: str) -> Array:
    """Return a tensor as an array; `InvalidInputError` for one that numpy does not hold, with what the module does."""
    try:
        return np.asarray(tensor.detach().numpy())
    except (TypeError, RuntimeError) as exc:
        layout = "" if tensor.layout is torch.strided else f" of layout {tensor.layout}"
        raise InvalidInputError(
            f"The module {does} as {tensor.dtype}{layout}, which no array holds; give float32, or whole numbers."
        ) from exc


def run_module(module: Any, inputs: Sequence[Tensor]) -> Mapping[str, Array]:  # noqa: ANN401 - what torch calls a module
    """Run the module and return its answer by name: a mapping's keys, else output, or output_0, output_1 ..."""
    try:
        with torch.no_grad():
            answer = module(*inputs)
    except Exception as exc:  # the publisher's own code
        shapes = " and ".join(str(list(one.shape)) for one in inputs)
        raise InvalidInputError(
            f"The module does not answer its example inputs, {shapes}: {format_root_cause(exc)}."
        ) from exc
    if isinstance(answer, Tensor):
        return {"output": to_array(answer, "answers 'output'")}
    named = (
        answer
        if isinstance(answer, Mapping)
        else {f"output_{place}": one for place, one in enumerate(flatten_answer(answer))}
    )
    if odd := [type(one).__name__ for one in named.values() if not isinstance(one, Tensor)]:
        raise InvalidInputError(
            f"The module answers with a {type(answer).__name__} of {odd[0]}; it must be of tensors."
        )
    return {str(name): to_array(one, f"answers {str(name)!r}") for name, one in named.items()}


def flatten_answer(answer: Any) -> list[Any]:  # noqa: ANN401 - whatever the module gave
    """Flatten an answer's tuples and lists, also nested ones: an LSTM returns (states, (hidden, cell))."""
    return [one for part in answer for one in flatten_answer(part)] if isinstance(answer, tuple | list) else [answer]
