"""The checkpoints of `tests/tiny_checkpoints.py` as GGUF files, written as llama.cpp's converter writes them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFWriter
from tokenizers.pre_tokenizers import ByteLevel

from functions.train.language_models.checkpoint_source import read_decoder_checkpoint
from functions.train.language_models.decoder_config import DecoderConfig, Weight
from functions.train.language_models.weight_shapes import list_weight_shapes
from tests.reference_decoder import scale_frequencies
from tests.tiny_checkpoints import CHAT_TEMPLATE, MERGES, SPECIAL_TOKENS, VOCABULARY, fuse_weights, write_checkpoint

FloatArray = npt.NDArray[np.float32]

ARCHITECTURES = {"gemma3_text": "gemma3", "mistral": "llama"}  # where the name is another than in config.json
INTERLEAVED = ("llama", "mistral")
NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
SANDWICH_NAMES = {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip
WHOLE_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}  # fmt: skip
NORMAL, CONTROL = 1, 3


def write_gguf(
    file: Path,
    name: str,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    *,
    metadata: Mapping[str, Any] | None = None,
    extra: Mapping[str, FloatArray] | None = None,
    left_out: str = "",
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Write a file of a name of `CONFIGS`, its matrices in blocks of a kind, and beside it the folder it is made of.

    `changes` are those of the folder's config.json; `metadata`, `extra` weights and one `left_out` are of the file.
    """
    folder = write_checkpoint(file.with_suffix(".folder"), name, **(changes or {}))
    checkpoint = read_decoder_checkpoint(folder)
    config = checkpoint.config
    writer = GGUFWriter(file, ARCHITECTURES.get(config.family, config.family))
    values = list_metadata(config, json.loads((folder / "config.json").read_text())) | dict(metadata or {})
    for key, value in values.items():
        add_value(writer, key, value)
    tensors = {
        gguf_name: tensor
        for gguf_name, tensor in convert_weights(checkpoint.weights.read, config).items()
        if gguf_name != left_out
    }
    for tensor_name, tensor in {**tensors, **(extra or {})}.items():
        is_matrix = tensor.ndim == 2
        data = gguf.quantize(tensor, kind) if is_matrix and kind != GGMLQuantizationType.F32 else tensor
        writer.add_tensor(tensor_name, data, raw_dtype=kind if is_matrix else GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def add_value(writer: GGUFWriter, key: str, value: Any) -> None:  # noqa: ANN401 - any value of the metadata
    """Add a value with the type that llama.cpp's converter takes for it; None leaves it out."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value is not None:
        writer.add_array(key, value)


def list_metadata(config: DecoderConfig, document: Mapping[str, Any]) -> dict[str, Any]:
    """List what the file says of the model."""
    scaling = config.rotary_scaling
    own = {
        "block_count": config.layers, "context_length": document["max_position_embeddings"],
        "embedding_length": config.width, "feed_forward_length": config.hidden_size,
        "attention.head_count": config.heads, "attention.head_count_kv": config.kv_heads,
        "attention.key_length": config.head_size, "attention.value_length": config.head_size,
        "attention.layer_norm_rms_epsilon": config.epsilon,
        "rope.dimension_count": config.rotary_size or config.head_size, "rope.freq_base": config.rotary_base,
        "attention.sliding_window": config.sliding_window or None,
        "attn_logit_softcapping": config.attention_softcap or None,
        "final_logit_softcapping": config.logits_softcap or None,
    }  # fmt: skip
    if scaling is not None and scaling.kind in {"linear", "yarn"}:
        own |= {"rope.scaling.type": scaling.kind, "rope.scaling.factor": scaling.factor}
    if scaling is not None and scaling.kind in {"yarn", "longrope"}:
        own["rope.scaling.original_context_length"] = scaling.original_context
    if scaling is not None and scaling.kind == "longrope":
        own["rope.scaling.attn_factor"] = scaling.attention_factor
    architecture = ARCHITECTURES.get(config.family, config.family)
    return {f"{architecture}.{key}": value for key, value in own.items()} | list_tokenizer_metadata()


def list_tokenizer_metadata() -> dict[str, Any]:
    """List what the file says of the tokenizer of `tests/tiny_checkpoints.py`."""
    tokens = [*SPECIAL_TOKENS, *sorted(ByteLevel.alphabet()), *(first + second for first, second in MERGES)]
    unused = [f"[PAD{each}]" for each in range(len(tokens), VOCABULARY)]
    return {
        "general.license": "apache-2.0",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens + unused,
        "tokenizer.ggml.token_type": [CONTROL] * 3 + [NORMAL] * (len(tokens) - 3) + [5] * len(unused),
        "tokenizer.ggml.merges": [f"{first} {second}" for first, second in MERGES],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def convert_weights(read: Callable[[str], Weight], config: DecoderConfig) -> dict[str, FloatArray]:
    """Convert the weights to llama.cpp's names and conventions."""
    plain = {}
    for name in list_weight_shapes(config):
        weight = read(name)
        assert isinstance(weight, np.ndarray)
        if config.unit_offset_norm and name.endswith("norm.weight"):
            weight = weight + np.float32(1)
        if config.family in INTERLEAVED and ".q_proj" in name:
            weight = interleave_rows(weight, config.heads)
        if config.family in INTERLEAVED and ".k_proj" in name:
            weight = interleave_rows(weight, config.kv_heads)
        plain[name] = weight
    tensors = {rename(name, config): weight for name, weight in fuse_weights(plain, config).items()}
    scaling = config.rotary_scaling
    if scaling is not None and scaling.kind == "longrope":
        tensors["rope_factors_short.weight"] = np.array(scaling.factors, np.float32)
        tensors["rope_factors_long.weight"] = 2 * np.array(scaling.factors, np.float32)
    if scaling is not None and scaling.kind == "llama3":
        frequencies = config.rotary_base ** -(np.arange(0, config.head_size, 2) / config.head_size)
        tensors["rope_freqs.weight"] = (frequencies / scale_frequencies(config, frequencies)).astype(np.float32)
    return tensors


def interleave_rows(weight: FloatArray, heads: int) -> FloatArray:
    """Put the rows of a head's two halves one between the other, as llama.cpp's converter does for Llama."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def rename(name: str, config: DecoderConfig) -> str:
    """Return llama.cpp's name of a weight."""
    if name in WHOLE_NAMES:
        return WHOLE_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    own = SANDWICH_NAMES.get(part) if config.sandwich_norm else None
    return f"blk.{layer}.{own or NAMES[part]}.{kind}"
