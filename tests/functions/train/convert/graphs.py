"""Small graphs of the kinds that exporters write, for tests of quantization."""

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from functions.train.data import Array

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Node = onnx.NodeProto


def weights(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:  # noqa: ANN401 - any numpy type
    """Random weights that keep the size of what they are multiplied with."""
    random = np.random.default_rng(seed)
    return np.asarray(random.standard_normal(shape) / np.sqrt(max(1, prod(shape[:-1]))), dtype)


def node(kind: str, inputs: str, outputs: str, name: str | None = None, **attributes: Any) -> Node:  # noqa: ANN401 - of onnx.helper.make_node
    """A node, its tensors named in words."""
    made = helper.make_node(kind, inputs.split(" "), outputs.split(" "), **attributes)
    made.name = f"{kind}-{outputs.split(' ')[0]}" if name is None else name
    return made


def value(name: str, shape: Sequence[int | str] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    """An input or output."""
    return helper.make_tensor_value_info(name, kind, shape)


def save(
    path: Path,
    nodes: Sequence[Node],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: dict[str, Array],
    opset: int = 17,
    ir: int = 8,
    **options: Any,  # noqa: ANN401 - of onnx.helper.make_model
) -> Path:
    """Write a graph."""
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    if ir < 4:
        inputs = [*inputs, *(value(name, values.shape) for name, values in constants.items())]
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), tensors)
    imports = [helper.make_opsetid("", opset), *options.pop("imports", [])]
    onnx.save(helper.make_model(graph, ir_version=ir, opset_imports=imports, **options), path)
    return path


def save_dense(path: Path, shape: Sequence[int | str], width: int = 256, classes: int = 10, **options: Any) -> Path:  # noqa: ANN401
    """x of a shape that ends in 256 to y, two products."""
    nodes = [node("MatMul", "x a", "h"), node("Relu", "h", "r"), node("MatMul", "r b", "y")]
    constants = {"a": weights(256, width), "b": weights(width, classes, seed=1)}
    return save(path, nodes, [value("x", shape)], [value("y", [*shape[:-1], classes])], constants, **options)


def save_convolution(path: Path, opset: int = 17, ir: int = 8, size: int | str = 12) -> Path:
    """x (N, 3, 12, 12) to y (N, 10): a convolution and a product."""
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        node("GlobalAveragePool", "b", "c"),
        node("Flatten", "c", "d"),
        node("Gemm", "d g bias", "y"),
    ]
    constants = {"w": weights(64, 3, 3, 3) * 3, "g": weights(64, 10), "bias": weights(10)}
    inputs, outputs = [value("x", ["N", 3, size, size])], [value("y", ["N", 10])]
    return save(path, nodes, inputs, outputs, constants, opset=opset, ir=ir)
