"""The settings of a decoder's config.json that are read, with the defaults that transformers has for each family."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from functions.train.language_models.decoder_config import MAX_LAYERS
from pilotlight.errors import InvalidInputError, UnsupportedError

Positive = Annotated[int, Meta(ge=1)]
PositiveNumber = Annotated[float, Meta(gt=0)]
FULL_ATTENTION, WINDOWED_ATTENTION = "full_attention", "sliding_attention"
# Gemma's first config.json name the activation `gelu`, but the model was trained with that of `hidden_activation`.
GEMMA = {"head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True}
GEMMA_LATER = {"num_key_value_heads": 4, "sliding_window": 4096, "query_pre_attn_scalar": 256.0}
# What transformers takes for what a config.json leaves out.
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 4096, "num_key_value_heads": 8},
    "qwen2": {"num_key_value_heads": 32},
    "qwen3": {"head_dim": 128, "num_key_value_heads": 32},
    "phi3": {"rms_norm_eps": 1e-5},
    "gemma": GEMMA | {"num_key_value_heads": 16},
    "gemma2": GEMMA
    | GEMMA_LATER
    | {"sliding_window_pattern": 2, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "gemma3_text": GEMMA | GEMMA_LATER | {"sliding_window_pattern": 6, "rope_theta": 1_000_000.0},
}
NULL_MEANS_NONE = ("sliding_window", "attn_logit_softcapping", "final_logit_softcapping")


class FolderSettings(Struct, frozen=True):
    """The settings of a config.json, by their names there."""

    model_type: str
    vocab_size: Positive
    hidden_size: Positive
    intermediate_size: Positive
    num_hidden_layers: Annotated[int, Meta(ge=1, le=MAX_LAYERS)]
    num_attention_heads: Positive
    max_position_embeddings: Positive
    num_key_value_heads: Positive | None = None
    head_dim: Positive | None = None
    rms_norm_eps: PositiveNumber = 1e-6
    hidden_act: str = "silu"
    hidden_activation: str | None = None
    tie_word_embeddings: bool | None = None
    rope_theta: PositiveNumber = 10_000.0
    rope_local_base_freq: PositiveNumber = 10_000.0
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    original_max_position_embeddings: Positive | None = None
    partial_rotary_factor: PositiveNumber = 1.0
    attention_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int | None = None
    sliding_window_pattern: Positive = 1
    use_sliding_window: bool = False
    max_window_layers: int = 0
    layer_types: list[str] | None = None
    query_pre_attn_scalar: PositiveNumber | None = None
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None
    use_bidirectional_attention: bool | str | None = None
    quantization_config: dict[str, Any] | None = None


def parse_folder_settings(file: Path, document: Mapping[str, Any]) -> FolderSettings:
    """Parse config.json; `UnsupportedError` for a family that is not read."""
    family = document.get("model_type")
    if family not in DEFAULTS:
        raise UnsupportedError(f"{file} is of a {family!r} model; {', '.join(DEFAULTS)} are read.")
    given = {key: value for key, value in document.items() if value is not None or key in NULL_MEANS_NONE}
    try:
        settings = msgspec.convert(DEFAULTS[family] | given, FolderSettings)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"{file} is no config.json of a {family} model: {exc}.") from exc
    refuse_unread_settings(file, settings)
    return settings


def refuse_unread_settings(file: Path, settings: FolderSettings) -> None:
    """Refuse what is not computed: other biases, attention to both sides, weights quantized by another tool."""
    if settings.quantization_config is not None:
        method = settings.quantization_config.get("quant_method", "an unknown method")
        raise UnsupportedError(
            f"{file} says that the weights are quantized by {method}, which is not read; publish the unquantized "
            "model, or a GGUF file."
        )
    if settings.mlp_bias:
        raise UnsupportedError(f"{file} has mlp_bias, biases of the feed-forward layers, which are not read.")
    if settings.attention_bias and settings.model_type != "qwen2":
        raise UnsupportedError(
            f"{file} has attention_bias, which adds a bias after attention too; only Qwen2's biases are read."
        )
    if settings.use_bidirectional_attention:
        raise UnsupportedError(f"{file} has use_bidirectional_attention: it is an encoder, which does not write text.")
