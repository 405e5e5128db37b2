"""Write a decoder of Llama's shape as Hugging Face's tools write it, for them and for `pilotlight publish`."""

from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import save

from functions.train.language_models.decoder_config import DecoderCheckpoint, FloatArray, QuantizedBlocks
from functions.train.language_models.weight_shapes import list_weight_shapes


def build_llama_files(checkpoint: DecoderCheckpoint) -> dict[str, bytes]:
    """Build the files by name: config.json, weights in fp32, and the tokenizer with the tokens that end texts."""
    special_tokens = dict(checkpoint.special_tokens)
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True, **special_tokens}
    generation_config = {"bos_token_id": checkpoint.begin_token, "eos_token_id": list(checkpoint.end_tokens)}
    return {
        "config.json": encode(build_llama_config(checkpoint)),
        "model.safetensors": save(read_weights(checkpoint), {"format": "pt"}),
        "tokenizer.json": checkpoint.tokenizer_json,
        "tokenizer_config.json": encode(tokenizer_config),
        "generation_config.json": encode(generation_config),
    }


def build_llama_config(checkpoint: DecoderCheckpoint) -> dict[str, Any]:
    """Build config.json."""
    config = checkpoint.config
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.width,
        "intermediate_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.epsilon,
        "hidden_act": config.activation,
        "rope_theta": config.rotary_base,
        "tie_word_embeddings": config.tied,
        "bos_token_id": checkpoint.begin_token,
        "eos_token_id": list(checkpoint.end_tokens),
        "torch_dtype": "float32",
    }


def read_weights(checkpoint: DecoderCheckpoint) -> dict[str, FloatArray]:
    """Read all weights."""
    weights = dict[str, FloatArray]()
    for name in list_weight_shapes(checkpoint.config):
        weight = checkpoint.weights.read(name)
        weights[name] = np.ascontiguousarray(weight.dequantize() if isinstance(weight, QuantizedBlocks) else weight)
    return weights


def encode(document: dict[str, Any]) -> bytes:
    """Encode a document as JSON that people read."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2)
