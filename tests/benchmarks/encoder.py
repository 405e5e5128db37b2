"""The model of the cold start's measures: an encoder of BERT-base's shape with int8 weights, 110 MB, made from a seed.

Random weights answer nothing useful, but cost what trained ones do: the same bytes, the same kernels. Values are
spread as those of trained layers are: normal, each column scaled to its largest.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS, WIDTH, HEADS, INNER, WORDS, PLACES = 12, 768, 12, 3072, 30_522, 512
OPSET = 20
Array = np.ndarray[Any, Any]


class Encoder:
    """Collects the nodes and weights of the graph; each method appends one step and names its result."""

    def __init__(self, seed: int, layers: int = LAYERS, bits: int = 8) -> None:
        self._random = np.random.default_rng(seed)
        self._largest = 2 ** (bits - 1) - 1  # 7 bits are what `quantize` makes (infra/decisions/0007)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._layers = layers

    def model(self) -> onnx.ModelProto:
        """`ids` int64 (1, tokens) to `embedding` float32 (1, 768), the mean over the tokens."""
        hidden = self._layer_norm(self._node("Add", self._embedded("ids", WORDS, "words"), self._places()), "start")
        for layer in range(self._layers):
            hidden = self._block(hidden, f"layer{layer}")
        self._node("ReduceMean", hidden, self._constant("axis", np.array([1], np.int64)), name="embedding", keepdims=0)
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "tokens"])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, WIDTH])],
            self._weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        onnx.checker.check_model(model)
        return model

    def _block(self, hidden: str, name: str) -> str:
        """One layer: attention, then the wide part, each with its residual and norm."""
        attended = self._dense(self._attention(hidden, name), WIDTH, WIDTH, f"{name}.joined")
        hidden = self._layer_norm(self._node("Add", attended, hidden), f"{name}.first")
        inner = self._node("Gelu", self._dense(hidden, WIDTH, INNER, f"{name}.wide"))
        outer = self._dense(inner, INNER, WIDTH, f"{name}.narrow")
        return self._layer_norm(self._node("Add", outer, hidden), f"{name}.second")

    def _attention(self, hidden: str, name: str) -> str:
        """Every token looks at every other: (1, T, W) to (1, T, W)."""
        query, key, value = (self._heads(self._dense(hidden, WIDTH, WIDTH, f"{name}.{part}")) for part in "qkv")
        scores = self._node("MatMul", query, self._node("Transpose", key, perm=[0, 1, 3, 2]))
        scale = self._constant(f"{name}.scale", np.array((WIDTH / HEADS) ** -0.5, np.float32))
        weights = self._node("Softmax", self._node("Mul", scores, scale), axis=-1)
        mixed = self._node("Transpose", self._node("MatMul", weights, value), perm=[0, 2, 1, 3])
        return self._node("Reshape", mixed, self._constant("joined", np.array([1, -1, WIDTH], np.int64)))

    def _heads(self, hidden: str) -> str:
        """(1, T, W) to (1, heads, T, W / heads)."""
        shape = self._constant("split", np.array([1, -1, HEADS, WIDTH // HEADS], np.int64))
        return self._node("Transpose", self._node("Reshape", hidden, shape), perm=[0, 2, 1, 3])

    def _dense(self, hidden: str, inputs: int, outputs: int, name: str) -> str:
        """x W + b as dynamic quantization writes it: int8 weights by column, activations quantized at run time."""
        weights, scale = self._quantized(inputs, outputs, 0)
        quantized, spread, zero = (f"{name}.x.{part}" for part in ("quantized", "scale", "zero"))
        self._nodes.append(helper.make_node("DynamicQuantizeLinear", [hidden], [quantized, spread, zero]))
        points = self._constant(f"{name}.zero", np.zeros(outputs, np.int8))
        product = self._node("MatMulInteger", quantized, self._constant(f"{name}.weight", weights), zero, points)
        scales = self._node("Mul", spread, self._constant(f"{name}.scale", scale))
        answer = self._node("Mul", self._node("Cast", product, to=TensorProto.FLOAT), scales)
        return self._node("Add", answer, self._constant(f"{name}.bias", self._normal(outputs) * 0.02))

    def _embedded(self, ids: str, rows: int, name: str) -> str:
        weights, scale = self._quantized(rows, WIDTH, None)
        row = self._node("Gather", self._constant(f"{name}.table", weights), ids, axis=0)
        return self._node("DequantizeLinear", row, self._constant(f"{name}.scale", scale))

    def _places(self) -> str:
        """The embedding of the tokens' places, cut to as many as there are."""
        table = self._constant("places.table", self._normal(1, PLACES, WIDTH) * 0.02)
        tokens = self._node("Shape", "ids", start=1, end=2)
        bounds = [self._constant(name, np.array([value], np.int64)) for name, value in (("from", 0), ("along", 1))]
        return self._node("Slice", table, bounds[0], tokens, bounds[1])

    def _layer_norm(self, hidden: str, name: str) -> str:
        scale, bias = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
        constants = self._constant(f"{name}.norm.scale", scale), self._constant(f"{name}.norm.bias", bias)
        return self._node("LayerNormalization", hidden, *constants, axis=-1, epsilon=1e-12)

    def _quantized(self, rows: int, columns: int, axis: int | None) -> tuple[Array, Array]:
        """Weights int8 (rows, columns) and their scale, one for each column with `axis` 0, else one for all."""
        raw = self._normal(rows, columns) * np.float32(0.02)
        scale = np.abs(raw).max(axis=axis) / np.float32(self._largest)
        return np.round(raw / scale).astype(np.int8), np.asarray(scale, np.float32)

    def _normal(self, *shape: int) -> Array:
        return self._random.standard_normal(shape, np.float32)

    def _constant(self, name: str, values: Array) -> str:
        if not any(weight.name == name for weight in self._weights):
            self._weights.append(numpy_helper.from_array(values, name))
        return name

    def _node(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:  # noqa: ANN401 - as in ONNX
        name = name or f"{kind}.{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name
