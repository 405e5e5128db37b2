"""From a trained module to an ONNX graph that says nothing about the machine it was made on.

Images go in as `image`, the columns of a table as `features`, the tokens of a text as `input_ids`; `logits` come out
for classes, a `prediction` for a number. The first dimension is called `batch`, the second of tokens `length`, and both
are free. Whether the graph computes what the module computes is for `parity`.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import onnx
import torch
from torch import nn

from functions.train.data.dataset import Dataset
from functions.train.errors import ExportError
from pilotlight.recipes.options.graph import ExportOptions

BATCH, LENGTH = "batch", "length"
EXAMPLES = 2  # torch.export takes a dimension of 0 or 1 in the example for a constant


def export(model: nn.Module, data: Dataset, options: ExportOptions, path: Path) -> int:
    """Write the module as a graph over raw inputs like these; gives the opset it got.

    The opset is read back from the file, since the exporter may leave a graph at an older one than it was asked for.
    """
    example = torch.from_numpy(data.inputs[:EXAMPLES])
    frozen = deepcopy(model).cpu().eval().requires_grad_(False)  # the exporter of an LSTM stumbles over gradients
    graph = strip(translate(frozen, example, ends(data), free(data), options.opset))
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)
    return opset(graph)


def ends(data: Dataset) -> tuple[str, str]:
    """What the graph's input and output are called."""
    if data.text:
        return "input_ids", "logits"
    return "image" if data.inputs.ndim == 4 else "features", "logits" if data.classes else "prediction"


def free(data: Dataset) -> dict[int, str]:
    """The input's dimensions that a request may choose, by their place."""
    return {0: BATCH, 1: LENGTH} if data.text else {0: BATCH}


def translate(
    model: nn.Module, example: torch.Tensor, names: tuple[str, str], dimensions: dict[int, str], target: int
) -> onnx.ModelProto:
    """Run torch's exporter, and keep its talk to ourselves unless it fails."""
    talk, (given, answer) = io.StringIO(), names
    try:
        with hushed(talk):
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=target,
                input_names=[given],
                output_names=[answer],
                dynamic_shapes=(dimensions,),
            )
    except torch.onnx.OnnxExporterError as exc:
        raise ExportError(f"The model cannot be exported: {reason(exc)}.") from exc
    if program is None:
        raise ExportError(f"The exporter gave nothing back: {talk.getvalue()}")
    return program.model_proto


def reason(error: BaseException) -> str:
    """The first line of what lies behind an error: the exporter's own says only at which of its steps it failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = (line.strip() for line in str(error).splitlines())
    said = next(filter(None, lines), type(error).__name__)[:300].rstrip(".")
    if "data-dependent" in said:
        said += "; which way it goes hangs on the values of an input, and a graph goes only one: torch.where takes both"
    return said


@contextlib.contextmanager
def hushed(talk: io.StringIO) -> Iterator[None]:
    """Catch what the exporter prints; drop its warnings, which are about its own internals, not about the model."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # that torchvision, which we do not use, is not installed; where a guard stands
    try:
        with contextlib.redirect_stdout(talk), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch.export calls its own deprecated pytree functions
            warnings.simplefilter("ignore", DeprecationWarning)  # so does onnxscript with those of onnx
            warnings.filterwarnings("ignore", ".*_flat_weights", UserWarning)  # nn.LSTM's own list of its weights
            yield
    finally:
        logging.disable(level)


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Clear, in place, the doc strings and properties that carry stack traces, and so the paths of this machine."""
    graph = model.graph
    described = [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, *model.functions]
    for part in [model, graph, *described, *(node for function in model.functions for node in function.node)]:
        part.doc_string = ""
        del part.metadata_props[:]
    return model


def opset(model: onnx.ModelProto) -> int:
    """The version of the standard operators that a graph asks for."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
