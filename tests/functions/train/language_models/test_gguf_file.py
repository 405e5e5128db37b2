"""GGUF files, tiny ones of each family, against the Hugging Face folders that they were converted from."""

import contextlib
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import given
from hypothesis import strategies as st

from functions.train.language_models.checkpoint_source import read_decoder_checkpoint
from functions.train.language_models.decoder_config import QuantizedBlocks
from functions.train.language_models.gguf_weights import GgufWeights, decode_rows
from functions.train.language_models.weight_shapes import list_weight_shapes
from pilotlight.errors import InvalidInputError, UnsupportedError
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


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q4_1, Kind.Q5_0])
def test_other_kinds_become_fp32(tmp_path: Path, kind: Kind) -> None:
    file = write_gguf(tmp_path / "model.gguf", "llama", kind)
    checkpoint, whole = read_decoder_checkpoint(file), read_decoder_checkpoint(file.with_suffix(".folder"))
    name = "model.layers.1.self_attn.k_proj.weight"
    weight, source = checkpoint.weights.read(name), whole.weights.read(name)
    assert isinstance(weight, np.ndarray)
    assert isinstance(source, np.ndarray)
    assert weight.dtype == np.float32
    assert weight.flags.writeable
    np.testing.assert_array_equal(weight, gguf.dequantize(gguf.quantize(source, kind), kind))


@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from([Kind.Q4_K, Kind.Q6_K, Kind.IQ4_XS]))
def test_blocks_of_256_become_fp32(seed: int, kind: Kind) -> None:
    block_bytes = gguf.GGML_QUANT_SIZES[kind][1]
    content = np.random.default_rng(seed).integers(0, 60, (4, 2 * block_bytes), np.uint8)  # scales that are finite
    decoded = decode_rows(content, kind)
    assert isinstance(decoded, np.ndarray)
    assert decoded.shape == (4, 512)
    np.testing.assert_array_equal(decoded, gguf.dequantize(content, kind))


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "model.gguf", "llama", Kind.Q8_0).read_bytes()


@given(st.data())
def test_a_file_that_ends_early_is_refused(whole_file: bytes, data: st.DataObject) -> None:
    length = data.draw(st.integers(4, len(whole_file) - 1))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.gguf"
        file.write_bytes(whole_file[:length])
        with pytest.raises(InvalidInputError, match=r"model\.gguf ends after .*(header|the weight [\w.]+ goes to)"):
            read_decoder_checkpoint(file)


@given(st.data())
def test_a_damaged_header_is_refused_or_read_but_never_fails_otherwise(whole_file: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole_file)
    for place in data.draw(st.lists(st.integers(4, 20_000), min_size=1, max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.gguf"
        file.write_bytes(damaged)
        with contextlib.suppress(InvalidInputError, UnsupportedError):
            read_decoder_checkpoint(file)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (
            {"left_out": "blk.1.ffn_up.weight"},
            InvalidInputError,
            r"model\.gguf has no weight model\.layers\.1\.mlp\.up",
        ),
        ({"left_out": "token_embd.weight"}, InvalidInputError, r"has no weight token_embd\.weight"),
        (
            {"extra": {"blk.0.ffn_norm.weight": np.ones(7, np.float32)}},
            InvalidInputError,
            r"the weight model\.layers\.0\.post_attention_layernorm\.weight is \[7\]; .* asks for \[64\]",
        ),
        (
            {"extra": {"blk.0.attn_output.bias": np.ones(64, np.float32)}},
            InvalidInputError,
            r"has the weight model\.layers\.0\.self_attn\.o_proj\.bias, which a llama model does not have",
        ),
        (
            {"metadata": {"general.architecture": "falcon"}},
            UnsupportedError,
            r"the architecture 'falcon'; llama, qwen2",
        ),
        ({"metadata": {"llama.expert_count": 8}}, UnsupportedError, r"is a mixture of experts"),
        ({"metadata": {"llama.block_count": "two"}}, InvalidInputError, r"'two' as llama\.block_count"),
        ({"metadata": {"llama.block_count": 0}}, InvalidInputError, r"0 as llama\.block_count"),
        ({"metadata": {"llama.rope.freq_base": "high"}}, InvalidInputError, r"'high' as llama\.rope\.freq_base"),
        ({"metadata": {"llama.attention.value_length": 8}}, UnsupportedError, r"values of another size"),
        ({"metadata": {"llama.rope.dimension_count": 8}}, UnsupportedError, r"rotates 8 of a head's 16 values"),
        ({"metadata": {"llama.rope.scaling.type": "new"}}, UnsupportedError, r"the rope\.scaling\.type 'new'"),
        ({"metadata": {"llama.rope.scaling.yarn_beta_fast": 8.0}}, UnsupportedError, r"yarn_beta_fast, which is not"),
        ({"metadata": {"llama.rope.freq_base": float("nan")}}, InvalidInputError, r"nan as llama\.rope\.freq_base"),
        ({"metadata": {"llama.block_count": 2**32 - 1}}, InvalidInputError, r"has 4,294,967,295 layers.*damaged"),
        ({"metadata": {"llama.attention.head_count_kv": 3}}, InvalidInputError, r"heads, 3 of keys; these do not div"),
        (
            {"extra": {"rope_freqs.weight": np.ones(7, np.float32)}},
            InvalidInputError,
            r"has 7 factors of rotation for 8 pairs",
        ),
        (
            {"extra": {"rope_freqs.weight": np.ones((1, 8), np.float32)}},
            UnsupportedError,
            r"the weight rope_freqs\.weight is \[1, 8\] of the kind F32; up to 4096 numbers",
        ),
        ({"metadata": {"split.count": "three"}}, UnsupportedError, r"one of three parts"),
        ({"metadata": {"split.count": 3}}, UnsupportedError, r"one of 3 parts; join them"),
    ],
)
def test_what_cannot_be_computed_is_refused(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    if "extra" in arguments and "ffn_norm" in str(arguments):
        arguments = arguments | {"left_out": "blk.0.ffn_norm.weight"}
    file = write_gguf(tmp_path / "model.gguf", "llama", **arguments)
    with pytest.raises(error, match=sentence):
        read_decoder_checkpoint(file)


def test_what_is_no_language_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"GGML, an older format")
    with pytest.raises(InvalidInputError, match=r"must be a Hugging Face folder or a GGUF file"):
        read_decoder_checkpoint(file)
    with pytest.raises(InvalidInputError, match=r"is no language model"):
        read_decoder_checkpoint(tmp_path / "nothing")
    file.write_bytes(b"GGUF\x01\x00\x00\x00" + bytes(16))
    with pytest.raises(UnsupportedError, match=r"GGUF of version 1"):
        read_decoder_checkpoint(file)


def test_a_weight_that_is_not_there_is_named(tmp_path: Path) -> None:
    checkpoint = read_decoder_checkpoint(write_gguf(tmp_path / "model.gguf", "llama"))
    assert "lm_head.weight" not in checkpoint.weights
    assert "model.norm.weight" in checkpoint.weights
    with pytest.raises(InvalidInputError, match=r"model\.gguf has no weight lm_head\.weight"):
        checkpoint.weights.read("lm_head.weight")


def test_a_row_of_blocks_is_refused(tmp_path: Path) -> None:
    """No converter writes one; its bytes would be taken for those of another shape."""
    file = write_gguf(tmp_path / "model.gguf", "llama")
    checkpoint = read_decoder_checkpoint(file)
    assert isinstance(checkpoint.weights, GgufWeights)
    part = checkpoint.weights.parts["model.norm.weight"]
    tensor = replace(part.tensor, kind=Kind.Q8_0, content=np.zeros((1, 68), np.uint8))
    weights = GgufWeights(file, {"model.norm.weight": replace(part, tensor=tensor)})
    with pytest.raises(UnsupportedError, match=r"output_norm\.weight is one row of the kind Q8_0"):
        weights.read("model.norm.weight")
