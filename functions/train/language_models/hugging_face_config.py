"""The shape of a decoder out of the config.json of a Hugging Face folder, as transformers 4 and 5 write it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from functions.train.language_models.decoder_config import DecoderConfig
from functions.train.language_models.hugging_face_rotation import read_rotation
from functions.train.language_models.hugging_face_settings import (
    FULL_ATTENTION,
    WINDOWED_ATTENTION,
    FolderSettings,
    parse_folder_settings,
)
from pilotlight.errors import InvalidInputError, UnsupportedError

ACTIVATIONS: dict[str, Literal["silu", "gelu_tanh"]] = {
    "silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh",
}  # fmt: skip
GEMMAS, SANDWICHED = ("gemma", "gemma2", "gemma3_text"), ("gemma2", "gemma3_text")
ALWAYS_WINDOWED = ("mistral", "phi3")


def parse_folder_config(file: Path, document: Mapping[str, Any], *, has_head: bool) -> DecoderConfig:
    """Parse config.json; whether the weights have a head matters where it does not say that embeddings are tied."""
    settings = parse_folder_settings(file, document)
    heads, family, tied = settings.num_attention_heads, settings.model_type, settings.tie_word_embeddings
    kv_heads = settings.num_key_value_heads or heads
    if heads % kv_heads or (settings.head_dim is None and settings.hidden_size % heads):
        raise InvalidInputError(
            f"{file} has {heads} heads, {kv_heads} of keys, at a width of {settings.hidden_size}; these do not divide."
        )
    head_size = settings.head_dim or settings.hidden_size // heads
    return DecoderConfig(
        **read_attention(file, settings),
        **read_rotation(file, settings, head_size),
        family=family,
        vocabulary_size=settings.vocab_size,
        width=settings.hidden_size,
        hidden_size=settings.intermediate_size,
        layers=settings.num_hidden_layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        epsilon=settings.rms_norm_eps,
        activation=find_activation(file, settings),
        tied=not has_head if tied is None else tied,
        query_key_norm=family in {"qwen3", "gemma3_text"},
        unit_offset_norm=family in GEMMAS,
        sandwich_norm=family in SANDWICHED,
        embedding_factor=settings.hidden_size**0.5 if family in GEMMAS else 1.0,
    )


def find_activation(file: Path, settings: FolderSettings) -> Literal["silu", "gelu_tanh"]:
    """Find the activation of the gate."""
    name = settings.hidden_activation or settings.hidden_act
    if name not in ACTIVATIONS:
        raise UnsupportedError(f"{file} has the activation {name!r}; {', '.join(ACTIVATIONS)} are read.")
    return ACTIVATIONS[name]


def read_attention(file: Path, settings: FolderSettings) -> dict[str, Any]:
    """Read how queries meet keys: scale, caps, biases and windows."""
    later_gemma = settings.model_type in SANDWICHED
    scalar = settings.query_pre_attn_scalar if later_gemma else None
    return {
        **read_windows(file, settings),
        "attention_bias": settings.model_type == "qwen2",
        "attention_scale": scalar**-0.5 if scalar is not None else 0.0,
        "attention_softcap": (settings.attn_logit_softcapping or 0.0) if later_gemma else 0.0,
        "logits_softcap": (settings.final_logit_softcapping or 0.0) if later_gemma else 0.0,
    }


def read_windows(file: Path, settings: FolderSettings) -> dict[str, Any]:
    """Read which layers see only the last tokens; none where the window is as wide as the context."""
    window, windowed = settings.sliding_window or 0, list_windowed_layers(file, settings)
    if not 0 < window < settings.max_position_embeddings or not any(windowed):
        return {}
    return {"sliding_window": window, "windowed_layers": windowed}


def list_windowed_layers(file: Path, settings: FolderSettings) -> tuple[bool, ...]:
    """List for each layer whether it has a window, as `layer_types` say or the family's own rule."""
    layers, kinds = range(settings.num_hidden_layers), settings.layer_types
    if kinds is not None:
        if unknown := sorted(set(kinds) - {FULL_ATTENTION, WINDOWED_ATTENTION}):
            raise UnsupportedError(f"{file} has layers of the type {unknown[0]!r}, which are not read.")
        if len(kinds) != len(layers):
            raise InvalidInputError(f"{file} has {len(layers)} layers, but the types of {len(kinds)}.")
        return tuple(kind == WINDOWED_ATTENTION for kind in kinds)
    if settings.model_type in SANDWICHED:
        return tuple((layer + 1) % settings.sliding_window_pattern > 0 for layer in layers)
    if settings.model_type in ALWAYS_WINDOWED:
        return tuple(True for _ in layers)
    return tuple(settings.use_sliding_window and layer >= settings.max_window_layers for layer in layers)
