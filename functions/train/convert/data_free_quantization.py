"""Quantize a graph to 8 or 4 bits without examples: the weights alone, and embedding tables by row."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from functions.train.export.graph_metadata import strip_metadata
from functions.train.export.quantizable_graph import count_uses, load_quantizable_graph
from functions.train.export.quantize import (
    INT8_MAX,
    QuantizationPlan,
    explain_failure,
    list_captured_layers,
    quantize_weights_int4,
    silence_quantizer,
)
from pilotlight.contracts.manifest import Precision

QUANTIZED_PRODUCTS = ("MatMul", "Gemm", "LSTM")  # whose weights are quantized if they are constants
MIN_TABLE_VALUES = 4096  # values of a table: below this, the scales take more bytes than they save


def quantize_without_data(graph: Path, precision: Precision, path: Path) -> None:
    """Write the graph in fewer bits; `QuantizationError` if the quantizer cannot.

    8 bits: products by column in 7 of 8 bits (decision 0007), activations in 8 bits over the range within a request. 4
    bits: products in blocks of a column, activations in fp32. Tables take 8 bits in both.
    """
    with explain_failure(), silence_quantizer(), TemporaryDirectory(prefix="pilotlight-quantize-") as folder:
        source, model = Path(folder, "source.onnx"), load_quantizable_graph(graph.absolute())
        onnx.save(model, source)
        if precision == "int4":
            quantize_weights_int4(source, (), QuantizationPlan("weight-only"), path)
        else:
            quantize_products(model, source, path)
        smaller = onnx.load(path)
        quantize_embedding_tables(smaller.graph)
        onnx.save(strip_metadata(smaller), path)


def quantize_products(model: onnx.ModelProto, source: Path, path: Path) -> None:
    """Quantize the constants of products in 8 bits."""
    excluded = list_captured_layers(model.graph)
    quantize_dynamic(
        source,
        path,
        op_types_to_quantize=list(QUANTIZED_PRODUCTS),
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[*excluded, *(f"{name}_MatMul" for name in excluded)],
    )


def quantize_embedding_tables(graph: onnx.GraphProto) -> None:
    """Store each large table, float (rows, width), that a Gather reads, as integers with a scale for each row.

    Only the rows that are read are scaled back: a table is neither copied nor unpacked when the graph opens.
    """
    constants, uses = {tensor.name: tensor for tensor in graph.initializer}, count_uses(graph)
    for node in [node for node in graph.node if node.op_type == "Gather" and is_large_table_lookup(node, constants)]:
        if uses[node.input[0]] == 1:
            quantize_table(graph, node, constants[node.input[0]])


def is_large_table_lookup(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Return whether a Gather picks rows from a large constant fp32 table."""
    table = constants.get(node.input[0])
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    if table is None or table.data_type != onnx.TensorProto.FLOAT or len(table.dims) != 2:
        return False
    return axis == 0 and int(np.prod(table.dims)) >= MIN_TABLE_VALUES


def quantize_table(graph: onnx.GraphProto, node: onnx.NodeProto, table: onnx.TensorProto) -> None:
    """Replace a table by integers, and the Gather that reads it by Gather, Gather, Cast, Mul."""
    values, name, (_, indices), answer = onnx.numpy_helper.to_array(table), table.name, node.input, node.output[0]
    scale = np.maximum(np.abs(values).max(axis=1, keepdims=True) / INT8_MAX, np.finfo(np.float32).tiny).astype(
        np.float32
    )
    steps = np.rint(values / scale).astype(np.int8)
    make_node = onnx.helper.make_node
    # The quantizers name tensors `x_quantized` and `x_scale`, also those of a product that reads these rows.
    nodes = [
        make_node("Gather", [f"{name}_row_steps", indices], [f"{answer}_row_steps"], f"{node.name}_row_steps"),
        make_node("Gather", [f"{name}_row_scale", indices], [f"{answer}_row_scale"], f"{node.name}_row_scale"),
        make_node("Cast", [f"{answer}_row_steps"], [f"{answer}_row"], f"{node.name}_row", to=onnx.TensorProto.FLOAT),
        make_node("Mul", [f"{answer}_row", f"{answer}_row_scale"], [answer], f"{node.name}_row_scaled"),
    ]
    place = list(graph.node).index(node)
    graph.node.remove(node)
    for offset, one in enumerate(nodes):
        graph.node.insert(place + offset, one)
    graph.initializer.remove(table)
    graph.initializer.append(onnx.numpy_helper.from_array(steps, f"{name}_row_steps"))
    graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{name}_row_scale"))
