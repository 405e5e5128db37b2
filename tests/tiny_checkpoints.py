"""Language models of each family, tiny and drawn at random, as the folders that Hugging Face's tools write.

`tests/models/decoders/make.py` has had transformers compute the logits of those with seed 0.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from functions.train.language_models.decoder_config import DecoderConfig
from functions.train.language_models.hugging_face_config import parse_folder_config
from functions.train.language_models.weight_shapes import list_weight_shapes

FloatArray = npt.NDArray[np.float32]

END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END, START, STOP)
MERGES = [("t", "h"), ("th", "e"), ("i", "n"), ("Ġ", "the"), ("a", "n"), ("an", "d"), ("Ġ", "and"), ("e", "r")]
VOCABULARY, CONTEXT = 288, 64
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5,
    "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GEMMA_LATER = {
    "head_dim": 32,
    "query_pre_attn_scalar": 24,
    "sliding_window": 8,
    "hidden_activation": "gelu_pytorch_tanh",
}
# What a family's config.json has beyond the sizes; written as transformers 4 did, and once as 5 does.
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": True, "rope_theta": 10000.0},
    "llama3": {
        "model_type": "llama", "tie_word_embeddings": False, "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "llama-linear": {
        "model_type": "llama", "tie_word_embeddings": False, "rope_scaling": {"type": "linear", "factor": 2.0},
    },
    "mistral": {"model_type": "mistral", "tie_word_embeddings": False, "sliding_window": 8},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True, "rope_theta": 1000000.0},
    "qwen2-yarn": {
        "model_type": "qwen2", "tie_word_embeddings": False,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    },
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": True, "head_dim": 32, "rope_theta": 1000000.0},
    "phi3": {"model_type": "phi3", "tie_word_embeddings": False, "sliding_window": 12},
    "phi3-longrope": {
        "model_type": "phi3", "tie_word_embeddings": False, "original_max_position_embeddings": 32,
        "partial_rotary_factor": 0.75,
        "rope_scaling": {
            "type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5], "long_factor": [2, 3, 4, 5, 6, 7],
        },
    },
    "gemma": {"model_type": "gemma", "head_dim": 32, "hidden_act": "gelu_pytorch_tanh"},
    "gemma2": {
        "model_type": "gemma2", **GEMMA_LATER, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0,
    },
    "gemma3": {
        "model_type": "gemma3_text", **GEMMA_LATER, "sliding_window_pattern": 3, "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
    "gemma3-new": {
        "model_type": "gemma3_text", **GEMMA_LATER,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
}  # fmt: skip
ARCHITECTURES = {
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM", "phi3": "Phi3ForCausalLM", "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM", "gemma3_text": "Gemma3ForCausalLM",
}  # fmt: skip


def write_checkpoint(folder: Path, name: str, *, seed: int = 0, **changes: Any) -> Path:  # noqa: ANN401 - of config.json
    """Write a folder with a name of `CONFIGS`; `changes` are made to its config.json. Return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    document = SIZES | CONFIGS[name] | changes
    document["architectures"] = [ARCHITECTURES[document["model_type"]]]
    (folder / "config.json").write_text(json.dumps(document))
    config = parse_folder_config(folder / "config.json", document, has_head=True)
    save_file(fuse_weights(draw_weights(config, seed), config), folder / "model.safetensors", {"format": "pt"})
    write_tokenizer(folder)
    return folder


def draw_weights(config: DecoderConfig, seed: int = 0) -> dict[str, FloatArray]:
    """Draw the weights by Llama's names, great enough that each of them matters."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in sorted(list_weight_shapes(config).items()):
        drawn = random.standard_normal(shape, dtype=np.float32)
        if len(shape) == 2:
            drawn = (drawn / shape[1] ** 0.5).astype(np.float32)
        elif name.endswith("norm.weight"):
            drawn = (drawn / 5 + (not config.unit_offset_norm)).astype(np.float32)
        weights[name] = drawn
    return weights


def fuse_weights(weights: Mapping[str, FloatArray], config: DecoderConfig) -> dict[str, FloatArray]:
    """Join queries, keys and values, and gate and up, where the family does."""
    fused = dict(weights)
    if config.family == "phi3":
        for prefix in (f"model.layers.{layer}." for layer in range(config.layers)):
            parts = [fused.pop(f"{prefix}self_attn.{part}_proj.weight") for part in "qkv"]
            fused[f"{prefix}self_attn.qkv_proj.weight"] = np.concatenate(parts)
            parts = [fused.pop(f"{prefix}mlp.{part}_proj.weight") for part in ("gate", "up")]
            fused[f"{prefix}mlp.gate_up_proj.weight"] = np.concatenate(parts)
    return fused


def build_tokenizer() -> Tokenizer:
    """Build a byte-level tokenizer: three special tokens, the bytes, and some merges."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*SPECIAL_TOKENS, *letters, *(first + second for first, second in MERGES)]
    tokenizer = Tokenizer(models.BPE(vocab={token: each for each, token in enumerate(tokens)}, merges=MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def write_tokenizer(folder: Path) -> None:
    """Write the tokenizer's files and those that say how texts end."""
    build_tokenizer().save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": {"content": STOP},
        "chat_template": CHAT_TEMPLATE,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))
