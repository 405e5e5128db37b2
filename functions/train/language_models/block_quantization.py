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
ROWS_AT_ONCE = 1024  # of a matrix, quantized together: it bounds the memory of intermediate results
SMALLEST_SCALE = np.finfo(np.float32).tiny  # below it, a block counts as zeros
# Of a block's first scale, tried for 4 bits: of SmolLM2-135M, they take perplexity from 16.99 to 16.16.
SCALE_FACTORS = (1.0, 0.95, 0.9, 0.85, 0.8, 1.05, 1.1, -1.0, -0.95, -0.9, -1.05, -1.1, -1.15)
GREATEST = {4: 8, 8: 127}  # |q - zero point| of the largest value in a block


def quantize_weight(weight: Weight, bits: Bits) -> QuantizedBlocks:
    """Quantize a weight (rows, columns), unless it has blocks that fit; those keep every bit.

    Raises `InvalidInputError` if the columns do not divide into blocks.
    """
    if isinstance(weight, QuantizedBlocks):
        return convert_blocks(weight, bits)
    columns = weight.shape[1]
    check_columns(columns)
    values = np.empty(weight.shape, np.uint8)
    scales = np.empty((len(weight), columns // BLOCK), np.float32)
    for start in range(0, len(weight), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        values[rows], scales[rows] = quantize_rows(weight[rows], bits)
    return QuantizedBlocks(bits, BLOCK, values, scales)


def check_columns(columns: int) -> None:
    """Raise `InvalidInputError` if a weight of so many columns does not divide into blocks."""
    if columns % BLOCK:
        raise InvalidInputError(
            f"A weight of {columns} columns cannot be quantized in blocks of {BLOCK}; publish it with --quantize none."
        )


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
    """Quantize rows in blocks; return the values, (rows, columns), and the scales, (rows, blocks)."""
    blocks = rows.reshape(len(rows), -1, BLOCK)
    if bits == 8:
        scales = np.abs(blocks).max(axis=-1) / np.float32(GREATEST[8])
        steps = round_to_steps(blocks, scales, bits)
    else:
        steps, scales = search_scales(blocks)
    return (steps + (1 << (bits - 1))).astype(np.uint8).reshape(rows.shape), scales


def round_to_steps(blocks: FloatArray, scales: FloatArray, bits: Bits) -> FloatArray:
    """Round values to the nearest whole multiple of their block's scale that `bits` can hold."""
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=np.abs(scales) > SMALLEST_SCALE)
    limit = 1 << (bits - 1)
    return np.clip(np.rint(blocks * inverse[..., None]), -limit, limit - 1)


def search_scales(blocks: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Search the scale of each block of 4-bit values with the least squared error; return multiples and scales.

    The first candidate is ggml's for Q4_0: the value that is greatest without its sign becomes -8, which has no
    positive counterpart, so that the scale may be negative. Others are `SCALE_FACTORS` of it. For the multiples that
    each of them rounds to, the best scale has a closed form.
    """
    places = np.abs(blocks).argmax(axis=-1, keepdims=True)
    first = np.take_along_axis(blocks, places, axis=-1)[..., 0] / np.float32(-GREATEST[4])
    best_steps, best_scales = np.zeros_like(blocks), np.zeros_like(first)
    least = np.square(blocks).sum(axis=-1)
    for factor in SCALE_FACTORS:
        steps = round_to_steps(blocks, first * np.float32(factor), 4)
        squares = np.square(steps).sum(axis=-1)
        products = (blocks * steps).sum(axis=-1)
        scales = np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)
        errors = np.square(blocks - steps * scales[..., None]).sum(axis=-1)
        better = errors < least
        least[better], best_scales[better], best_steps[better] = errors[better], scales[better], steps[better]
    return best_steps, best_scales


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
