"""Blocks: exact where nothing must be rounded, as near as their scale allows where it must."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from functions.train.language_models.block_quantization import BLOCK, Bits, pack_blocks, quantize_weight
from functions.train.language_models.decoder_config import FloatArray, QuantizedBlocks
from pilotlight.errors import InvalidInputError

ROWS, COLUMNS = 3, 64
MATRICES = arrays.arrays(
    np.float32, (ROWS, COLUMNS), elements=st.floats(-100, 100, width=32).map(lambda one: one if abs(one) > 1e-6 else 0)
)


def draw_blocks(bits: Bits, block: int = BLOCK) -> st.SearchStrategy[QuantizedBlocks]:
    values = arrays.arrays(np.uint8, (ROWS, COLUMNS), elements=st.integers(0, 2**bits - 1))
    scales = arrays.arrays(np.float32, (ROWS, COLUMNS // block), elements=st.floats(-10, 10, width=32))
    return st.builds(QuantizedBlocks, st.just(bits), st.just(block), values, scales)


@given(matrix=MATRICES)
def test_rounding_to_8_bits_is_to_the_nearest(matrix: FloatArray) -> None:
    blocks = quantize_weight(matrix, 8)
    steps = np.repeat(np.abs(blocks.scales), BLOCK, axis=1)
    assert (np.abs(blocks.dequantize() - matrix) <= steps * 0.5005 + 1e-6).all()


@given(matrix=MATRICES)
def test_no_block_of_4_bits_is_worse_than_ggmls(matrix: FloatArray) -> None:
    """Its Q4_0 divides by the value that is greatest without its sign, of which it makes -8."""
    blocks = quantize_weight(matrix, 4)
    split = matrix.reshape(ROWS, -1, BLOCK).astype(np.float64)
    scales = np.take_along_axis(split, np.abs(split).argmax(-1, keepdims=True), -1) / -8
    steps = np.clip(np.rint(np.divide(split, scales, out=np.zeros_like(split), where=scales != 0)), -8, 7)
    error = np.square(split - steps * scales).sum(-1)
    ours = np.square(split - blocks.dequantize().reshape(split.shape)).sum(-1)
    assert (blocks.bits, blocks.values.max() <= 15) == (4, True)
    assert (ours <= error * 1.001 + 1e-6).all()


@given(blocks=st.one_of(draw_blocks(4), draw_blocks(8)))
def test_blocks_of_the_same_width_keep_every_bit(blocks: QuantizedBlocks) -> None:
    kept = quantize_weight(blocks, blocks.bits)
    assert np.array_equal(kept.values, blocks.values)
    assert np.array_equal(kept.scales, blocks.scales)


@given(blocks=draw_blocks(4))
def test_widening_loses_nothing(blocks: QuantizedBlocks) -> None:
    wide = quantize_weight(blocks, 8)
    assert wide.bits == 8
    assert np.array_equal(wide.dequantize(), blocks.dequantize())


@given(blocks=st.one_of(draw_blocks(8), draw_blocks(4, block=16)))
def test_other_blocks_are_rounded_anew(blocks: QuantizedBlocks) -> None:
    again = quantize_weight(blocks, 4)
    assert (again.bits, again.block) == (4, BLOCK)
    assert np.array_equal(again.values, quantize_weight(blocks.dequantize(), 4).values)


@given(blocks=draw_blocks(4))
def test_two_values_share_a_byte_the_first_in_the_low_half(blocks: QuantizedBlocks) -> None:
    packed = pack_blocks(blocks)
    assert packed.shape == (ROWS, COLUMNS // BLOCK, BLOCK // 2)
    low, high = packed & 15, packed >> 4
    unpacked = np.stack([low, high], axis=-1).reshape(ROWS, COLUMNS)
    assert np.array_equal(unpacked, blocks.values)


def test_many_rows_are_as_few() -> None:
    """Rows are quantized in parts; that shows nowhere."""
    matrix = np.random.default_rng(0).standard_normal((9000, 32)).astype(np.float32)
    whole = quantize_weight(matrix, 4)
    assert np.array_equal(whole.values[5000:], quantize_weight(matrix[5000:], 4).values)


def test_columns_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"48 columns.*--quantize none"):
        quantize_weight(np.zeros((2, 48), np.float32), 8)
