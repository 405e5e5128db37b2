"""The shape of a decoder out of the metadata of a GGUF file.

Keys are those of llama.cpp's converter; what its metadata do not say, such as which of Gemma's layers have a window,
is what llama.cpp has in its own code for the architecture.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from functions.train.language_models.decoder_config import MAX_LAYERS, DecoderConfig, RotaryScaling
from functions.train.language_models.gguf_header import GgufHeader
from functions.train.language_models.rotary_tables import compute_yarn_attention_factor
from pilotlight.errors import InvalidInputError, UnsupportedError

# llama.cpp's architectures, and `model_type` of the same in Hugging Face's config.json.
FAMILIES = {
    "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "phi3": "phi3", "gemma": "gemma", "gemma2": "gemma2",
    "gemma3": "gemma3_text",
}  # fmt: skip
GEMMAS = ("gemma", "gemma2", "gemma3")
SANDWICHED = ("gemma2", "gemma3")
WINDOW_PERIODS = {"gemma2": 2, "gemma3": 6}  # of so many layers, the last one sees everything
SCALED_BY_WIDTH = {"gemma2": 46, "gemma3": 62}  # layers of the models whose scores are scaled by width / heads
GEMMA2_WINDOW, GEMMA3_WINDOWED_BASE = 4096, 10000.0
ROTARY_FACTORS = "rope_freqs.weight"  # Llama 3's, as llama.cpp has computed them
SHORT_FACTORS, LONG_FACTORS = "rope_factors_short.weight", "rope_factors_long.weight"  # Phi's
UNREAD_SCALING = ("yarn_log_multiplier", "yarn_ext_factor", "yarn_beta_fast", "yarn_beta_slow", "yarn_attn_factor")


@dataclass(frozen=True)
class ArchitectureValues:
    """The metadata of a file under the name of its architecture, such as `llama.block_count`."""

    file: Path
    architecture: str
    metadata: Mapping[str, Any]

    def read_size(self, key: str, default: int | None = None) -> int:
        """Read a whole number from 1; `InvalidInputError` if it is missing without a default, or something else."""
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if isinstance(value, list) and value and len(set(map(str, value))) == 1:
            value = value[0]  # one for each layer
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidInputError(
                f"{self.file} has {value!r} as {self.architecture}.{key}, which must be a whole number from 1 and the "
                "same for all layers."
            )
        return value

    def read_number(self, key: str, default: float | None = None) -> float:
        """Read a number; `InvalidInputError` if it is missing without a default, NaN, or something else."""
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise InvalidInputError(f"{self.file} has {value!r} as {self.architecture}.{key}, which must be a number.")
        return float(value)

    def has(self, key: str) -> bool:
        """Return whether the file has this key, with something other than zero."""
        return bool(self.metadata.get(f"{self.architecture}.{key}"))


def parse_gguf_config(header: GgufHeader, rotary_factors: tuple[float, ...] = ()) -> DecoderConfig:
    """Parse the metadata; `rotary_factors` are those of the file's weights; `UnsupportedError` for other models."""
    architecture = header.metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in FAMILIES:
        raise UnsupportedError(
            f"{header.file} is of the architecture {architecture!r}; {', '.join(FAMILIES)} are read."
        )
    values = ArchitectureValues(header.file, architecture, header.metadata)
    if values.has("expert_count"):
        raise UnsupportedError(f"{header.file} is a mixture of experts, which is not read; choose a dense model.")
    return DecoderConfig(
        **read_sizes(values, header),
        **read_attention(values, header),
        **read_rotation(values, rotary_factors),
        family=FAMILIES[architecture],
        context_length=count_context(values, header),
        epsilon=values.read_number("attention.layer_norm_rms_epsilon"),
        activation="gelu_tanh" if architecture in GEMMAS else "silu",
        tied="output.weight" not in header.tensors,
        embedding_factor=values.read_size("embedding_length") ** 0.5 if architecture in GEMMAS else 1.0,
        sandwich_norm=architecture in SANDWICHED,
        query_key_norm="blk.0.attn_q_norm.weight" in header.tensors,
    )  # llama.cpp's converter has added the 1 to Gemma's norms: `unit_offset_norm` remains False


def read_sizes(values: ArchitectureValues, header: GgufHeader) -> dict[str, Any]:
    """Read the sizes of the decoder."""
    heads, width = values.read_size("attention.head_count"), values.read_size("embedding_length")
    kv_heads, layers = values.read_size("attention.head_count_kv", heads), values.read_size("block_count")
    if heads % kv_heads:
        raise InvalidInputError(f"{header.file} has {heads} heads, {kv_heads} of keys; these do not divide.")
    if layers > MAX_LAYERS:
        raise InvalidInputError(f"{header.file} has {layers:,} layers, more than {MAX_LAYERS:,}; it is damaged.")
    head_size = values.read_size("attention.key_length", max(width // heads, 1))
    if values.read_size("attention.value_length", head_size) != head_size:
        raise UnsupportedError(f"{header.file} has values of another size than its keys, which is not read.")
    if "token_embd.weight" not in header.tensors:
        raise InvalidInputError(f"{header.file} has no weight token_embd.weight; it is no language model, or damaged.")
    return {
        "vocabulary_size": header.tensors["token_embd.weight"].shape[0],
        "width": width,
        "hidden_size": values.read_size("feed_forward_length"),
        "layers": layers,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_size": head_size,
    }


def read_attention(values: ArchitectureValues, header: GgufHeader) -> dict[str, Any]:
    """Read how queries meet keys: scale, caps and windows."""
    architecture, layers = values.architecture, values.read_size("block_count")
    softcaps = {}
    if architecture == "gemma2":
        softcaps["attention_softcap"] = values.read_number("attn_logit_softcapping", 50.0)
        softcaps["logits_softcap"] = values.read_number("final_logit_softcapping", 30.0)
    if architecture == "gemma3":
        softcaps["logits_softcap"] = values.read_number("final_logit_softcapping", 0.0)
    by_width = layers == SCALED_BY_WIDTH.get(architecture)
    scale = (values.read_size("embedding_length") / values.read_size("attention.head_count")) ** -0.5 if by_width else 0
    return {
        **softcaps,
        **read_windows(values, layers),
        "attention_bias": "blk.0.attn_q.bias" in header.tensors,
        "attention_scale": float(scale),
    }


def read_windows(values: ArchitectureValues, layers: int) -> dict[str, Any]:
    """Read which layers see only the last tokens; none where the window is as wide as the context."""
    default = GEMMA2_WINDOW if values.architecture == "gemma2" else 0
    window = int(values.read_number("attention.sliding_window", default))
    if not 0 < window < values.read_size("context_length"):
        return {}
    return {"sliding_window": window, "windowed_layers": list_windowed_layers(values, layers)}


def list_windowed_layers(values: ArchitectureValues, layers: int) -> tuple[bool, ...]:
    """List for each layer whether it has a window: by a list, or all but the last of so many; 0 for all."""
    pattern = values.metadata.get(f"{values.architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, list):
        if len(pattern) != layers:
            raise InvalidInputError(f"{values.file} has {layers} layers, but the windows of {len(pattern)}.")
        return tuple(bool(windowed) for windowed in pattern)
    period = int(values.read_number("attention.sliding_window_pattern", WINDOW_PERIODS.get(values.architecture, 0)))
    return tuple(period < 1 or layer % period < period - 1 for layer in range(layers))


def read_rotation(values: ArchitectureValues, factors: tuple[float, ...]) -> dict[str, Any]:
    """Read how positions turn queries and keys."""
    head_size = values.read_size(
        "attention.key_length", values.read_size("embedding_length") // values.read_size("attention.head_count")
    )
    rotated = values.read_size("rope.dimension_count", head_size)
    if rotated > head_size or (rotated < head_size and values.architecture == "llama"):
        raise UnsupportedError(f"{values.file} rotates {rotated} of a head's {head_size} values, which is not read.")
    if factors and len(factors) != rotated // 2:
        raise InvalidInputError(
            f"{values.file} has {len(factors)} factors of rotation for {rotated // 2} pairs of values."
        )
    rotation: dict[str, Any] = {
        "rotary_base": values.read_number("rope.freq_base", 10000.0),
        "rotary_size": 0 if rotated == head_size else rotated,
        "rotary_scaling": read_scaling(values, factors),
    }
    if values.architecture == "gemma3":
        rotation["windowed_rotary_base"] = values.read_number("rope.freq_base_swa", GEMMA3_WINDOWED_BASE)
    return rotation


def read_scaling(values: ArchitectureValues, factors: tuple[float, ...]) -> RotaryScaling | None:
    """Read how frequencies are changed: by a factor for each, by one for all, or not at all."""
    kind = values.metadata.get(f"{values.architecture}.rope.scaling.type", "none")
    if unread := [key for key in UNREAD_SCALING if values.has(f"rope.scaling.{key}")]:
        raise UnsupportedError(f"{values.file} sets rope.scaling.{unread[0]}, which is not read.")
    if factors:
        attention = values.read_number("rope.scaling.attn_factor", 1.0)
        return RotaryScaling("longrope", factors=factors, attention_factor=attention)
    factor = values.read_number("rope.scaling.factor", values.read_number("rope.scale_linear", 1.0))
    if kind == "none" and factor == 1.0:
        return None
    if kind in {"none", "linear"}:
        return RotaryScaling("linear", factor=factor)
    if kind != "yarn":
        raise UnsupportedError(f"{values.file} has the rope.scaling.type {kind!r}; linear, yarn and longrope are read.")
    original = values.read_size("rope.scaling.original_context_length", values.read_size("context_length"))
    attention = compute_yarn_attention_factor(factor)
    return RotaryScaling("yarn", factor=factor, original_context=original, attention_factor=attention)


def count_context(values: ArchitectureValues, header: GgufHeader) -> int:
    """Count the tokens of the longest context: with factors for short ones, as far as these hold."""
    longest = values.read_size("context_length")
    if SHORT_FACTORS in header.tensors:
        return min(longest, values.read_size("rope.scaling.original_context_length", longest))
    return longest
