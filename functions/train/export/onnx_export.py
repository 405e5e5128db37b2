"""From a trained module to an ONNX graph without traces of the machine that exported it.

The input is `image` for images, `features` for the columns of a table, and `input_ids` for the tokens of a text; the
output is `logits` for classes, and `prediction` for a number. The first dimension is called `batch`, the second of
tokens `length`, and both are dynamic. `parity` checks that the graph computes what the module computes.
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
from functions.train.export.graph_metadata import strip_metadata
from pilotlight.recipes.schema import ExportOptions

BATCH_DIMENSION, LENGTH_DIMENSION = "batch", "length"
EXAMPLE_COUNT = 2  # torch.export takes a dimension of 0 or 1 in the example for a constant


def export_onnx(model: nn.Module, data: Dataset, options: ExportOptions, path: Path) -> int:
    """Write the module as a graph over raw inputs like these; return the graph's opset.

    The opset is read back from the file, since the exporter may leave a graph at an older one than the requested one.
    """
    example = torch.from_numpy(data.inputs[:EXAMPLE_COUNT])
    frozen = deepcopy(model).cpu().eval().requires_grad_(False)  # the exporter of an LSTM stumbles over gradients
    graph = strip_metadata(
        run_onnx_exporter(frozen, example, get_tensor_names(data), get_dynamic_dimensions(data), options.opset)
    )
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)
    return get_opset(graph)


def get_tensor_names(data: Dataset) -> tuple[str, str]:
    """Return the names of the graph's input and output."""
    if data.text:
        return "input_ids", "logits"
    return "image" if data.inputs.ndim == 4 else "features", "logits" if data.classes else "prediction"


def get_dynamic_dimensions(data: Dataset) -> dict[int, str]:
    """Return the input's dimensions that a request may choose, by their index."""
    return {0: BATCH_DIMENSION, 1: LENGTH_DIMENSION} if data.text else {0: BATCH_DIMENSION}


def run_onnx_exporter(
    model: nn.Module,
    example: torch.Tensor,
    names: tuple[str, str],
    dynamic_dimensions: dict[int, str],
    target_opset: int,
) -> onnx.ModelProto:
    """Run torch's exporter, and show its output only when it fails."""
    exporter_output, (given, answer) = io.StringIO(), names
    try:
        with silence_exporter(exporter_output):
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=target_opset,
                input_names=[given],
                output_names=[answer],
                dynamic_shapes=(dynamic_dimensions,),
            )
    except torch.onnx.OnnxExporterError as exc:
        raise ExportError(f"The model cannot be exported: {format_root_cause(exc)}.") from exc
    if program is None:
        raise ExportError(f"The exporter gave nothing back: {exporter_output.getvalue()}")
    return program.model_proto


def format_root_cause(error: BaseException) -> str:
    """Format the first line of an error's root cause: the exporter's own message only names the step that failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = (line.strip() for line in str(error).splitlines())
    message = next(filter(None, lines), type(error).__name__)[:300].rstrip(".")
    if "data-dependent" in message:
        message += (
            "; which way it goes hangs on the values of an input, and a graph goes only one: torch.where takes both"
        )
    return message


@contextlib.contextmanager
def silence_exporter(exporter_output: io.StringIO) -> Iterator[None]:
    """Capture what the exporter prints; drop its warnings, which are about its own internals, not about the model."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # that torchvision, which is not used, is not installed; where a guard is
    try:
        with contextlib.redirect_stdout(exporter_output), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch.export calls its own deprecated pytree functions
            warnings.simplefilter("ignore", DeprecationWarning)  # so does onnxscript with those of onnx
            warnings.filterwarnings("ignore", ".*_flat_weights", UserWarning)  # nn.LSTM's own list of its weights
            yield
    finally:
        logging.disable(level)


def get_opset(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators that a graph needs."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
