"""GGUF files, tiny ones of each family, against the Hugging Face folders that they were converted from."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import given
from hypothesis import strategies as st

from functions.train.language_models.checkpoint_source import read_decoder_checkpoint
from functions.train.language_models.decoder_config import QuantizedBlocks
from functions.train.language_models.gguf_weights import decode_rows
from functions.train.language_models.weight_shapes import list_weight_shapes
from tests.models.decoders.make import TOKENS
from tests.reference_decoder import ReferenceDecoder
from tests.tiny_checkpoints import CONFIGS
from tests.tiny_gguf import write_gguf

# GGUF files do not say these of Gemma's later families; llama.cpp has them in its code.
CONVENTIONS: dict[str, dict[str, Any]] = {
    "gemma2": {"query_pre_attn_scalar": 32},
    "gemma3": {"query_pre_attn_scalar": 32, "sliding_window_pattern": 6, "num_hidden_layers": 7},
    "gemma3-new": {"query_pre_attn_scalar": 32, "layer_types": ["sliding_attention"] * 3},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_is_computed_as_the_folder_that_it_was_made_of(tmp_path: Path, name: str) -> None:
    file = write_gguf(tmp_path / "model.gguf", name, changes=CONVENTIONS.get(name))
    from_file, from_folder = (read_decoder_checkpoint(path) for path in (file, file.with_suffix(".folder")))
    logits = ReferenceDecoder(from_file).compute_logits(TOKENS)
    np.testing.assert_allclose(logits, ReferenceDecoder(from_folder).compute_logits(TOKENS), rtol=1e-4, atol=1e-5)
    assert from_file.end_tokens == (2, 0)
    assert from_file.chat_template == from_folder.chat_template
    assert from_file.config.context_length == from_folder.config.context_length


@pytest.mark.parametrize("kind", [Kind.Q4_0, Kind.Q8_0])
def test_blocks_are_carried_over_bit_for_bit_and_in_the_order_of_rows(tmp_path: Path, kind: Kind) -> None:
    whole = read_decoder_checkpoint(write_gguf(tmp_path / "whole.gguf", "llama"))
    checkpoint = read_decoder_checkpoint(write_gguf(tmp_path / "blocks.gguf", "llama", kind))
    for name, shape in list_weight_shapes(checkpoint.config).items():
        weight, source = checkpoint.weights.read(name), whole.weights.read(name)
        assert isinstance(source, np.ndarray)
        if len(shape) == 1:
            np.testing.assert_array_equal(np.asarray(weight), source)
            continue
        assert isinstance(weight, QuantizedBlocks)
        assert weight.values.shape == shape
        assert weight.scales.shape == (shape[0], shape[1] // 32)
        rounded = gguf.dequantize(gguf.quantize(source, kind), kind)  # rows are quantized one by one
        np.testing.assert_array_equal(weight.dequantize(), rounded, name)


@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from([Kind.Q4_0, Kind.Q8_0]), rows=st.integers(1, 5))
def test_any_block_is_what_the_gguf_package_makes_of_it(seed: int, kind: Kind, rows: int) -> None:
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (rows, 3, {Kind.Q4_0: 18, Kind.Q8_0: 34}[kind]), np.uint8)
    blocks[:, :, :2] = random.normal(0, 100, (rows, 3)).astype(np.float16)[:, :, None].view(np.uint8)
    content = blocks.reshape(rows, -1)
    decoded = decode_rows(content, kind)
    assert isinstance(decoded, QuantizedBlocks)
    np.testing.assert_array_equal(decoded.dequantize(), gguf.dequantize(content, kind))
