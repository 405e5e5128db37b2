"""From an fp32 graph to one in 8-bit or 4-bit integers, by onnxruntime's quantizers, both sides signed.

Only the graph and the calibration inputs are used, never a validation or test example. `quantization_search` chooses
which plans to try, and which result is good enough.
"""

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from functions.train.data import Array
from functions.train.data.pixels import Inputs, Pixels, count_images_at_once, iterate_chunks
from functions.train.export.onnx_export import strip_metadata
from pilotlight.contracts.manifest import Precision
from pilotlight.runtime.session import Session

QUANTIZED_OPERATORS = (
    "Conv",
    "Gemm",
    "MatMul",
    "LSTM",
    "GRU",
)  # the operators that are quantized, when their weights are constants
UNQUANTIZED_OPERATORS = (
    "Gather",
    "Where",
)  # they fill gaps and spread categories, before anything is scaled to one range
INT8_MAX = 127  # the largest of the symmetric range
ACCURACY_LEVEL = 1  # of MatMulNBits' products: fp32


@dataclass(frozen=True)
class QuantizationPlan:
    """One way to quantize a graph."""

    scheme: str  # one of SCHEMES
    per_channel: bool = True  # a scale for each output of a layer, in place of one for the layer
    excluded_layers: tuple[str, ...] = ()  # names of layers that stay in fp32
    block_size: int = 32  # weights that share a scale, of `weight-only`

    @property
    def precision(self) -> Precision:
        """The precision of the weights."""
        return "int4" if self.scheme == "weight-only" else "int8"

    def __str__(self) -> str:
        spared = f", {', '.join(self.excluded_layers)} in fp32" if self.excluded_layers else ""
        if self.scheme == "weight-only":
            return f"weight-only int4 in blocks of {self.block_size}{spared}"
        return f"{self.scheme}, per {'channel' if self.per_channel else 'tensor'}{spared}"


class CalibrationInputs(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Raw inputs in batches, in the form that the calibrator reads."""

    def __init__(self, name: str, inputs: Inputs, batch: int = 64) -> None:
        self.name = name
        size = min(batch, count_images_at_once(inputs.image_shape)) if isinstance(inputs, Pixels) else batch
        self._batches: Iterator[Array] = (inputs[start : start + size] for start in range(0, len(inputs), size))

    def get_next(self) -> dict[str, Array] | None:
        """Return the next batch, or None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {self.name: batch}


def quantize_static_int8(prepared: Path, inputs: Inputs, plan: QuantizationPlan, path: Path) -> None:
    """Quantize weights to 7 of 8 bits, and activations to 8 over the range seen on the inputs, as QDQ.

    7 bits (`reduce_range`), because a CPU without VNNI adds pairs of 8-by-8-bit products in 16 bits, which saturate:
    the same graph then gives other answers on another host, and the CPU of a Lambda function is not known. Digits on
    AVX2, fused integer kernels against the same graph unfused in fp32: at 8 bits up to 3.1 apart on a logit and 2 of
    450 classes, at 7 bits 0.03 and none. Dense layers give their result in fp32, so that the largest logit is not cut
    off at the calibrated range.
    """
    graph = onnx.load(prepared).graph
    raw = [node.name for node in graph.node if node.op_type in UNQUANTIZED_OPERATORS]
    quantize_static(
        prepared,
        path,
        CalibrationInputs(graph.input[0].name, inputs),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=plan.per_channel,
        reduce_range=True,
        nodes_to_exclude=[*plan.excluded_layers, *raw],
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
    )


def quantize_dynamic_int8(prepared: Path, inputs: Inputs, plan: QuantizationPlan, path: Path) -> None:
    """Quantize weights to 7 of 8 bits, as above, and activations to 8 over the range in each request.

    A GRU, for which onnxruntime has no integer kernel, keeps its weights in 8 bits and computes in fp32. The quantizer
    splits a Gemm into a MatMul, which gets a name of its own, and an Add, so the exclusion names both.
    """
    quantize_dynamic(
        prepared,
        path,
        per_channel=plan.per_channel,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[*plan.excluded_layers, *(f"{name}_MatMul" for name in plan.excluded_layers)],
    )
    model = onnx.load(path)
    for node in [node for node in model.graph.node if node.op_type == "GRU" and node.name not in plan.excluded_layers]:
        quantize_gru_weights(model.graph, node, plan)
    onnx.save(model, path)


def quantize_weights_int4(prepared: Path, inputs: Inputs, plan: QuantizationPlan, path: Path) -> None:
    """Quantize weights of matrix products to 4 bits, with a scale for each block of a column; all else stays in fp32.

    Rounded to the nearest of 16 steps from -8 to 7 scales (`MatMulNBits`). Activations stay in fp32 (accuracy level 1),
    so that a request's answer depends neither on the CPU nor on what else is in its batch.
    """
    quantizer = import_nbits_quantizer().MatMulNBitsQuantizer(
        onnx.load(prepared),
        block_size=plan.block_size,
        is_symmetric=True,
        accuracy_level=ACCURACY_LEVEL,
        nodes_to_exclude=list(plan.excluded_layers),
    )
    quantizer.process()
    onnx.save(quantizer.model.model, path)


def import_nbits_quantizer() -> Any:  # noqa: ANN401 - onnxruntime ships no types
    """Import onnxruntime's quantizer to few bits, and undo its set-up of the root logger."""
    handlers, level = list(logging.root.handlers), logging.root.level
    module = importlib.import_module("onnxruntime.quantization.matmul_nbits_quantizer")
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    return module


SCHEMES: Mapping[str, Callable[[Path, Inputs, QuantizationPlan, Path], None]] = {
    "static": quantize_static_int8,
    "dynamic": quantize_dynamic_int8,
    "weight-only": quantize_weights_int4,
}


def quantize_gru_weights(graph: onnx.GraphProto, node: onnx.NodeProto, plan: QuantizationPlan) -> None:
    """Store both weights (directions, 3 * hidden, features) of a GRU as integers, and scale them when it runs."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for position in (1, 2):
        tensor = weights[node.input[position]]
        values = onnx.numpy_helper.to_array(tensor)
        largest = np.abs(values).max(axis=(0, 2) if plan.per_channel else None)
        scale = np.maximum(largest / INT8_MAX, np.finfo(np.float32).tiny).astype(np.float32)
        steps = np.rint(values / (scale[:, None] if plan.per_channel else scale)).astype(np.int8)
        name = tensor.name
        graph.initializer.remove(tensor)
        graph.initializer.append(onnx.numpy_helper.from_array(steps, f"{name}_quantized"))
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(scale), f"{name}_scale"))
        inputs_and_outputs = [f"{name}_quantized", f"{name}_scale"], [name]
        graph.node.insert(
            0, onnx.helper.make_node("DequantizeLinear", *inputs_and_outputs, f"{name}_dequantize", axis=1)
        )


def quantize_graph(graph: Path, inputs: Inputs, plan: QuantizationPlan, path: Path) -> None:
    """Write the smaller variant of a graph, calibrated on raw inputs (N, ...) of the training set."""
    with silence_quantizer(), prepare_graph(graph) as ready:
        contiguous = inputs if isinstance(inputs, Pixels) else np.ascontiguousarray(inputs)
        SCHEMES[plan.scheme](ready, contiguous, plan, path)
    onnx.save(strip_metadata(onnx.load(path)), path)


def list_quantizable_layers(graph: Path) -> tuple[str, ...]:
    """List the names of the layers that are quantized unless a plan excludes them."""
    with silence_quantizer(), prepare_graph(graph) as ready:
        model = onnx.load(ready).graph
    weights = {tensor.name for tensor in model.initializer}
    return tuple(node.name for node in model.node if node.op_type in QUANTIZED_OPERATORS and node.input[1] in weights)


@contextmanager
def prepare_graph(graph: Path) -> Iterator[Path]:
    """Prepare the graph with its shapes inferred and its constants folded, while it is needed."""
    with TemporaryDirectory(prefix="pilotlight-quantize-") as folder:
        path, source = Path(folder, "prepared.onnx"), graph.absolute()
        with chdir(folder):  # when shape inference gives up, it writes a file into the working folder
            quant_pre_process(source, path, skip_symbolic_shape=has_dynamic_length(source))
        yield path


def has_dynamic_length(graph: Path) -> bool:
    """Return whether more than the batch is dynamic: onnxruntime's shape inference then fails at the causal mask."""
    dimensions = onnx.load(graph).graph.input[0].type.tensor_type.shape.dim
    return sum(bool(dimension.dim_param) for dimension in dimensions) > 1


@contextmanager
def silence_quantizer() -> Iterator[None]:
    """Keep the quantizer's advice, which it writes to the root logger, out of the log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def run_graph(session: Session, inputs: Inputs) -> Array:
    """Run the graph on (N, ...) raw inputs, images in parts that fit in memory, and return its only output."""
    (given,), (answer,) = session.inputs, session.outputs
    answers = [session.run({given.name: chunk})[answer.name] for chunk in iterate_chunks(inputs)]
    return answers[0] if len(answers) == 1 else np.concatenate(answers)
