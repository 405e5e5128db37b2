"""Quantize matrices in blocks of columns with one scale each, as MatMulNBits, an operator of onnxruntime, reads them.

Blocks that a file already has are kept bit by bit: a second rounding cost a 4-bit model a quarter of its perplexity.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from functions.train.language_models.decoder_config import FloatArray, QuantizedBlocks, Weight
from pilotlight.errors import InvalidInputError

Bits = Literal[4, 8]
BLOCK = 32  # columns with one scale: as in GGUF's Q4_0 and Q8_0
ROWS_AT_ONCE = 4096  # of a matrix, quantized together: it bounds the memory of intermediate results
SMALLEST_SCALE = np.finfo(np.float32).tiny  # below it, a block counts as zeros
GREATEST = {4: 8, 8: 127}  # |q - zero point| of the largest value in a block


def quantize_weight(weight: Weight, bits: Bits) -> QuantizedBlocks:
    """Quantize a weight (rows, columns), unless it has blocks that fit; those keep every bit.

    Raises `InvalidInputError` if the columns do not divide into blocks.
    """
    if isinstance(weight, QuantizedBlocks):
        return convert_blocks(weight, bits)
    columns = weight.shape[1]
    if columns % BLOCK:
        raise InvalidInputError(
            f"A weight of {columns} columns cannot be quantized in blocks of {BLOCK}; publish it with --quantize none."
        )
    values = np.empty(weight.shape, np.uint8)
    scales = np.empty((len(weight), columns // BLOCK), np.float32)
    for start in range(0, len(weight), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        values[rows], scales[rows] = quantize_rows(weight[rows], bits)
    return QuantizedBlocks(bits, BLOCK, values, scales)


def convert_blocks(blocks: QuantizedBlocks, bits: Bits) -> QuantizedBlocks:
    """Give blocks another width: from 4 to 8 bits nothing is lost, the other way is a second rounding."""
    if blocks.block != BLOCK:
        return quantize_weight(blocks.dequantize(), bits)
    if blocks.bits == bits:
        return blocks
    if bits == 8:
        return QuantizedBlocks(8, BLOCK, blocks.values + np.uint8(128 - 8), blocks.scales)
    return quantize_weight(blocks.dequantize(), bits)


def quantize_rows(rows: FloatArray, bits: Bits) -> tuple[npt.NDArray[np.uint8], FloatArray]:
    """Quantize rows to the nearest of 2 ** bits numbers, as ggml does for Q4_0 and Q8_0.

    With 4 bits, the value that is greatest without its sign becomes -8, of which there is no positive counterpart: so
    the scale may be negative, and no number of the 16 is left out.
    """
    blocks = rows.reshape(len(rows), -1, BLOCK)
    magnitudes = np.abs(blocks)
    if bits == 8:
        scales = magnitudes.max(axis=-1) / np.float32(GREATEST[8])
    else:
        places = magnitudes.argmax(axis=-1, keepdims=True)
        scales = np.take_along_axis(blocks, places, axis=-1)[..., 0] / np.float32(-GREATEST[4])
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=np.abs(scales) > SMALLEST_SCALE)
    zero_point = 1 << (bits - 1)
    values = np.rint(blocks * inverse[..., None]) + zero_point
    return np.clip(values, 0, 2 * zero_point - 1).astype(np.uint8).reshape(rows.shape), scales


def join_rows(parts: Sequence[QuantizedBlocks]) -> QuantizedBlocks:
    """Join matrices of the same width and columns, one below the other."""
    first = parts[0]
    if len(parts) == 1:
        return first
    values = np.concatenate([part.values for part in parts])
    scales = np.concatenate([part.scales for part in parts])
    return QuantizedBlocks(first.bits, first.block, values, scales)


def pack_blocks(blocks: QuantizedBlocks) -> npt.NDArray[np.uint8]:
    """Pack values as MatMulNBits reads them: (rows, blocks, bytes), of two 4-bit values the first in the low half."""
    by_block = blocks.values.reshape(len(blocks.values), -1, blocks.block)
    if blocks.bits == 8:
        return by_block
    packed: npt.NDArray[np.uint8] = by_block[..., 0::2] | (by_block[..., 1::2] << np.uint8(4))
    return packed
