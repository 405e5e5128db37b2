"""Write the matrices of a decoder in the precision of a variant: whole numbers in blocks, or fp32.

Matrices that have the same input are joined to one, since each operator costs some 20 us beside its arithmetic.
"""

from collections.abc import Sequence

import numpy as np

from functions.train.language_models import block_quantization
from functions.train.language_models.block_quantization import BLOCK, Bits
from functions.train.language_models.decoder_config import DecoderWeights, FloatArray, QuantizedBlocks
from functions.train.language_models.graph_builder import MICROSOFT, GraphBuilder
from pilotlight.contracts.manifest import Precision

BODY_BITS: dict[Precision, Bits] = {"int8": 8, "int4": 4}
HEAD_BITS: Bits = 8  # of head and embeddings in all quantized variants: 4 cost too much there
INT8_ARITHMETIC = 4  # MatMulNBits: inputs are rounded to 8 bits, and multiplied as whole numbers


class LinearLayers:
    """Adds the matrices of a decoder to a graph; weights are read when they are needed."""

    def __init__(self, builder: GraphBuilder, weights: DecoderWeights, precision: Precision) -> None:
        """Keep where to write, what to read, and how precise it is to be."""
        self._builder = builder
        self._weights = weights
        self._bits = BODY_BITS.get(precision)

    def add_projection(self, source: str, names: Sequence[str], output: str) -> str:
        """Add the product with matrices of these names, joined, and their biases; the names have no `.weight`."""
        bias = self._add_bias(names, output)
        if self._bits is None:
            matrix = np.concatenate([self.read_matrix(f"{name}.weight") for name in names])
            product = output if not bias else f"{output}/product"
            self._add_float_product(source, self._builder.add_constant(f"{output}/weight", matrix), product)
            return self._builder.add_node("Add", [product, bias], output) if bias else output
        blocks = block_quantization.join_rows([self._read_blocks(f"{name}.weight", self._bits) for name in names])
        return self._add_block_product(source, f"{output}/weight", blocks, output, bias)

    def add_embedding(self, tokens: str, name: str, output: str) -> str:
        """Add the lookup of tokens in a table of this name, which the head may share."""
        if self._bits is None:
            return self._builder.add_node("Gather", [self._add_float_matrix(name), tokens], output)
        table = self._add_head_blocks(name)
        rows, columns = self._builder.get_shape(f"{name}/scales")
        view = self._builder.add_view(f"{name}/table", table, [rows, columns * BLOCK])
        return self._builder.add_node(
            "GatherBlockQuantized", [view, tokens, f"{name}/scales"], output, MICROSOFT,
            bits=HEAD_BITS, block_size=BLOCK, gather_axis=0, quantize_axis=1,
        )  # fmt: skip

    def add_head(self, source: str, name: str, output: str) -> str:
        """Add the product with the matrix that gives the logits."""
        if self._bits is None:
            return self._add_float_product(source, self._add_float_matrix(name), output)
        table = self._add_head_blocks(name)
        rows, columns = self._builder.get_shape(f"{name}/scales")
        return self._add_matmul_node(source, table, rows, columns * BLOCK, HEAD_BITS, output, "")

    def read_matrix(self, name: str) -> FloatArray:
        """Read a weight as fp32."""
        weight = self._weights.read(name)
        return weight.dequantize() if isinstance(weight, QuantizedBlocks) else weight.astype(np.float32, copy=False)

    def _read_blocks(self, name: str, bits: Bits) -> QuantizedBlocks:
        return block_quantization.quantize_weight(self._weights.read(name), bits)

    def _add_bias(self, names: Sequence[str], output: str) -> str:
        biases = [f"{name}.bias" for name in names if f"{name}.bias" in self._weights]
        if not biases:
            return ""
        return self._builder.add_constant(f"{output}/bias", np.concatenate([self.read_matrix(one) for one in biases]))

    def _add_float_matrix(self, name: str) -> str:
        """Add a matrix that may be used twice; it is read once."""
        if not self._builder.has_constant(name):
            self._builder.add_constant(name, self.read_matrix(name))
        return name

    def _add_head_blocks(self, name: str) -> str:
        """Add the blocks of a matrix that may be used twice; return their name."""
        blocks_name = f"{name}/blocks"
        if not self._builder.has_constant(blocks_name):
            blocks = self._read_blocks(name, HEAD_BITS)
            self._builder.add_constant(blocks_name, block_quantization.pack_blocks(blocks))
            self._builder.add_constant(f"{name}/scales", blocks.scales)
        return blocks_name

    def _add_float_product(self, source: str, matrix: str, output: str) -> str:
        return self._builder.add_node("FusedMatMul", [source, matrix], output, MICROSOFT, transB=1)

    def _add_block_product(self, source: str, name: str, blocks: QuantizedBlocks, output: str, bias: str) -> str:
        self._builder.add_constant(f"{name}/blocks", block_quantization.pack_blocks(blocks))
        self._builder.add_constant(f"{name}/scales", blocks.scales)
        rows, columns = blocks.values.shape
        return self._add_matmul_node(source, f"{name}/blocks", rows, columns, blocks.bits, output, bias)

    def _add_matmul_node(
        self, source: str, blocks: str, rows: int, columns: int, bits: Bits, output: str, bias: str
    ) -> str:
        scales = f"{blocks.removesuffix('/blocks')}/scales"
        optional = ["", "", bias] if bias else []  # zero points and order, of which the default is right
        return self._builder.add_node(
            "MatMulNBits", [source, blocks, scales, *optional], output, MICROSOFT,
            K=columns, N=rows, bits=bits, block_size=BLOCK, accuracy_level=INT8_ARITHMETIC,
        )  # fmt: skip
