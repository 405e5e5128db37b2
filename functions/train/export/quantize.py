"""From an fp32 graph to one in 8-bit or 4-bit integers, by onnxruntime's quantizers, both sides signed.

Only the graph and the calibration inputs are used, never a validation or test example. `quantization_search` chooses
which plans to try, and which result is good enough.
"""

import importlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, suppress
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
from functions.train.errors import QuantizationError
from functions.train.export.graph_metadata import strip_metadata
from functions.train.export.quantizable_graph import (
    CHANNEL_OPSET,
    count_uses,
    find_captured_names,
    get_opset,
    load_quantizable_graph,
    name_nodes,
)
from pilotlight.contracts.manifest import Precision
from pilotlight.runtime.golden_recorder import Feeds
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
MAX_REASON = 160  # characters of a library's message that are repeated
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
        if self.scheme == "data-free":
            return f"weights of products and tables, without examples{spared}"
        if self.scheme == "weight-only":
            return f"weight-only int4 in blocks of {self.block_size}{spared}"
        return f"{self.scheme}, per {'channel' if self.per_channel else 'tensor'}{spared}"


class CalibrationInputs(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Requests with raw inputs, in the form that the calibrator reads."""

    def __init__(self, feeds: Iterable[Feeds]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, Array] | None:
        """Return the next request, or None after the last."""
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)


def split_into_feeds(name: str, inputs: Inputs, batch_size: int = 64) -> Iterator[Feeds]:
    """Split the examples (N, ...) of a graph's only input into requests, images into what fits in memory."""
    size = min(batch_size, count_images_at_once(inputs.image_shape)) if isinstance(inputs, Pixels) else batch_size
    for start in range(0, len(inputs), size):
        yield {name: np.ascontiguousarray(inputs[start : start + size])}


def quantize_static_int8(prepared: Path, feeds: Iterable[Feeds], plan: QuantizationPlan, path: Path) -> None:
    """Quantize weights to 7 of 8 bits, and activations to 8 over the range seen on the inputs, as QDQ.

    7 bits (`reduce_range`), because a CPU without VNNI adds pairs of 8-by-8-bit products in 16 bits, which saturate:
    the same graph then gives other answers on another host, and the CPU of a Lambda function is not known. Digits on
    AVX2, fused integer kernels against the same graph unfused in fp32: at 8 bits up to 3.1 apart on a logit and 2 of
    450 classes, at 7 bits 0.03 and none. Dense layers give their result in fp32, so that the largest logit is not cut
    off at the calibrated range.
    """
    model = onnx.load(prepared)
    if not feeds:
        raise QuantizationError("a static range needs examples of the inputs")
    if plan.per_channel and (opset := get_opset(model)) < CHANNEL_OPSET:
        raise QuantizationError(
            f"a scale for each channel needs opset {CHANNEL_OPSET}, and the graph's {opset} could not be raised"
        )
    raw = [node.name for node in model.graph.node if node.op_type in UNQUANTIZED_OPERATORS]
    quantize_static(
        prepared,
        path,
        CalibrationInputs(feeds),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=plan.per_channel,
        reduce_range=True,
        nodes_to_exclude=[*plan.excluded_layers, *raw, *list_captured_layers(model.graph)],
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
    )


def quantize_dynamic_int8(prepared: Path, feeds: Iterable[Feeds], plan: QuantizationPlan, path: Path) -> None:
    """Quantize weights to 7 of 8 bits, as above, and activations to 8 over the range in each request.

    A GRU, for which onnxruntime has no integer kernel, keeps its weights in 8 bits and computes in fp32. The quantizer
    splits a Gemm into a MatMul, which gets a name of its own, and an Add, so the exclusion names both.
    """
    excluded = [*plan.excluded_layers, *list_captured_layers(onnx.load(prepared).graph)]
    quantize_dynamic(
        prepared,
        path,
        per_channel=plan.per_channel,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[*excluded, *(f"{name}_MatMul" for name in excluded)],
    )
    model = onnx.load(path)
    for node in [node for node in model.graph.node if node.op_type == "GRU" and node.name not in excluded]:
        if get_opset(model) >= CHANNEL_OPSET and has_constant_weights(model.graph, node):
            quantize_gru_weights(model.graph, node, plan)
    onnx.save(model, path)


def quantize_weights_int4(prepared: Path, feeds: Iterable[Feeds], plan: QuantizationPlan, path: Path) -> None:
    """Quantize weights of matrix products to 4 bits, with a scale for each block of a column; all else stays in fp32.

    Rounded to the nearest of 16 steps from -8 to 7 scales (`MatMulNBits`). Activations stay in fp32 (accuracy level 1),
    so that a request's answer depends neither on the CPU nor on what else is in its batch.
    """
    quantizer = import_nbits_quantizer().MatMulNBitsQuantizer(
        onnx.load(prepared),
        block_size=plan.block_size,
        is_symmetric=True,
        accuracy_level=ACCURACY_LEVEL,
        nodes_to_exclude=[*plan.excluded_layers, *list_captured_layers(onnx.load(prepared).graph)],
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


SCHEMES: Mapping[str, Callable[[Path, Iterable[Feeds], QuantizationPlan, Path], None]] = {
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


def has_constant_weights(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    """Return whether both weights of a recurrent layer are constants in fp32 that no other node reads."""
    floats = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    uses = count_uses(graph)
    return all(node.input[position] in floats and uses[node.input[position]] == 1 for position in (1, 2))


def list_captured_layers(graph: onnx.GraphProto) -> list[str]:
    """List the layers whose weights a subgraph reads too: a quantizer would take those away from it."""
    captured = find_captured_names(graph)
    return [node.name for node in graph.node if captured.intersection(node.input)]


def quantize_graph(graph: Path, inputs: Inputs | Sequence[Feeds], plan: QuantizationPlan, path: Path) -> None:
    """Write the smaller variant of a graph, calibrated on raw inputs (N, ...) of the training set, or on requests.

    Raises `QuantizationError` if the quantizer cannot, whatever it raises itself.
    """
    with explain_failure(), silence_quantizer(), prepare_graph(graph) as ready:
        feeds: Iterable[Feeds]
        if isinstance(inputs, np.ndarray | Pixels):
            feeds = split_into_feeds(onnx.load(ready, load_external_data=False).graph.input[0].name, inputs)
        else:
            feeds = inputs
        SCHEMES[plan.scheme](ready, feeds, plan, path)
        onnx.save(strip_metadata(onnx.load(path)), path)


@contextmanager
def explain_failure() -> Iterator[None]:
    """Turn whatever a quantizer raises into a `QuantizationError` of one clause."""
    try:
        yield
    except QuantizationError:
        raise
    except MemoryError as exc:
        raise QuantizationError("there is not enough memory for it") from exc
    except Exception as exc:  # quantizers raise anything: KeyError, AssertionError, IndexError, errors of onnx's C++
        raise QuantizationError(f"the quantizer stopped with {describe_exception(exc)}") from exc


def describe_exception(exc: Exception) -> str:
    """Describe an exception of a library by its type and the start of its first line."""
    lines = str(exc).strip().splitlines() or [""]
    text = re.sub(r"/\S+/|\[[A-Z]+:?\w*\]|\s+", " ", lines[0]).strip().rstrip(".:")
    return f"{type(exc).__name__}: {text[:MAX_REASON]}" if text else type(exc).__name__


def list_quantizable_layers(graph: Path) -> tuple[str, ...]:
    """List the names of the layers that are quantized unless a plan excludes them; `QuantizationError` if none can."""
    with explain_failure(), silence_quantizer(), prepare_graph(graph) as ready:
        model = onnx.load(ready).graph
    weights, captured = {tensor.name for tensor in model.initializer}, list_captured_layers(model)
    layers = [node for node in model.node if node.op_type in QUANTIZED_OPERATORS and node.name not in captured]
    return tuple(node.name for node in layers if node.input[1] in weights)


@contextmanager
def prepare_graph(graph: Path) -> Iterator[Path]:
    """Prepare the graph with its shapes inferred and its constants folded, while it is needed."""
    with TemporaryDirectory(prefix="pilotlight-quantize-") as folder:
        path, source = Path(folder, "prepared.onnx"), Path(folder, "source.onnx")
        onnx.save(load_quantizable_graph(graph.absolute()), source)
        with chdir(folder):  # when shape inference gives up, it writes a file into the working folder
            infer_shapes(source, path)
        model = onnx.load(path)
        name_nodes(model)  # the optimizer has made new ones
        onnx.save(model, path)
        yield path


def infer_shapes(source: Path, path: Path) -> None:
    """Infer shapes and fold constants as far as it goes: what fails is left out."""
    attempts = [{"skip_symbolic_shape": has_dynamic_length(source)}, {"skip_symbolic_shape": True}]
    attempts += [{"skip_symbolic_shape": True, "skip_optimization": True}]
    for options in attempts:
        with suppress(Exception):  # the next attempt does without the step that failed, whatever it raised
            quant_pre_process(source, path, **options)
            return
    onnx.save(onnx.load(source), path)


def has_dynamic_length(graph: Path) -> bool:
    """Return whether more than the batch is dynamic: onnxruntime's shape inference then fails at the causal mask."""
    inputs = onnx.load(graph).graph.input
    dimensions = inputs[0].type.tensor_type.shape.dim if inputs else []
    return sum(bool(dimension.dim_param) for dimension in dimensions) > 1


@contextmanager
def silence_quantizer() -> Iterator[None]:
    """Keep the quantizer's advice, which it writes to the root logger, out of the log."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def run_graph(session: Session, inputs: Inputs) -> Array:
    """Run the graph on (N, ...) raw inputs, images in parts that fit in memory, and return its only output."""
    (given,), (answer,) = session.inputs, session.outputs
    answers = [session.run({given.name: chunk})[answer.name] for chunk in iterate_chunks(inputs)]
    return answers[0] if len(answers) == 1 else np.concatenate(answers)
