"""From a trained module to an ONNX graph that says nothing about the machine it was made on.

The input is called `image`, the output `logits`, the first dimension `batch`. Whether the graph computes what the
module computes is for `parity` to say.
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

from functions.train.data import Array
from functions.train.errors import ExportError
from functions.train.recipe import ExportOptions

INPUT, OUTPUT, BATCH = "image", "logits", "batch"
EXAMPLES = 2  # torch.export takes a dimension of 0 or 1 in the example for a constant


def export(model: nn.Module, images: Array, options: ExportOptions, path: Path) -> int:
    """Write the module as a graph over raw images like these, its batch dimension free; gives the opset it got.

    The opset is read back from the file, since the exporter may leave a graph at an older one than it was asked for.
    """
    example = torch.from_numpy(images[:EXAMPLES])
    graph = strip(translate(deepcopy(model).cpu().eval(), example, options.opset))
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)
    return opset(graph)


def translate(model: nn.Module, example: torch.Tensor, target: int) -> onnx.ModelProto:
    """Run torch's exporter, and keep its talk to ourselves unless it fails."""
    talk = io.StringIO()
    try:
        with hushed(talk):
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=target,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: BATCH},),
            )
    except torch.onnx.OnnxExporterError as exc:
        raise ExportError(f"The model cannot be exported: {str(exc).strip().splitlines()[0]}") from exc
    if program is None:
        raise ExportError(f"The exporter gave nothing back: {talk.getvalue()}")
    return program.model_proto


@contextlib.contextmanager
def hushed(talk: io.StringIO) -> Iterator[None]:
    """Catch what the exporter prints; drop its warnings, which are about its own internals, not about the model."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns that torchvision, which we do not use, is not installed
    try:
        with contextlib.redirect_stdout(talk), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch.export calls its own deprecated pytree functions
            warnings.simplefilter("ignore", DeprecationWarning)  # so does onnxscript with those of onnx
            yield
    finally:
        log.setLevel(level)


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
