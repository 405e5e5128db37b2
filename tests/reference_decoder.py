"""A decoder in plain numpy, all positions at once and without a cache: what graphs and readers must agree with.

The formulas are those of transformers' `modeling_llama.py` and its relatives, for one sequence.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from functions.train.language_models.decoder_config import DecoderCheckpoint, DecoderConfig, QuantizedBlocks

FloatArray = npt.NDArray[np.float64]


class ReferenceDecoder:
    """Computes logits of a checkpoint in fp64."""

    def __init__(self, checkpoint: DecoderCheckpoint) -> None:
        self.config, self.weights = checkpoint.config, checkpoint.weights

    def read(self, name: str) -> FloatArray:
        """Read a weight."""
        weight = self.weights.read(name)
        return (weight.dequantize() if isinstance(weight, QuantizedBlocks) else weight).astype(np.float64)

    def compute_logits(self, tokens: Sequence[int]) -> FloatArray:
        """Compute the logits that follow each token, (tokens, vocabulary)."""
        config, embeddings = self.config, self.read("model.embed_tokens.weight")
        states = embeddings[list(tokens)] * config.embedding_factor
        for layer in range(config.layers):
            states = self.compute_layer(states, layer)
        head = embeddings if config.tied else self.read("lm_head.weight")
        return cap(self.normalise(states, "model.norm") @ head.T, config.logits_softcap)

    def compute_layer(self, states: FloatArray, layer: int) -> FloatArray:
        """Compute a layer, (tokens, width) to the same."""
        prefix, sandwich = f"model.layers.{layer}.", self.config.sandwich_norm
        attended = self.attend(self.normalise(states, f"{prefix}input_layernorm"), layer)
        states = states + (self.normalise(attended, f"{prefix}post_attention_layernorm") if sandwich else attended)
        before = "pre_feedforward_layernorm" if sandwich else "post_attention_layernorm"
        thought = self.feed_forward(self.normalise(states, prefix + before), f"{prefix}mlp.")
        return states + (self.normalise(thought, f"{prefix}post_feedforward_layernorm") if sandwich else thought)

    def normalise(self, values: FloatArray, name: str) -> FloatArray:
        """Divide the last axis by its root mean square, and multiply it by a weight."""
        weight = self.read(f"{name}.weight") + self.config.unit_offset_norm
        normed: FloatArray = values / np.sqrt((values**2).mean(-1, keepdims=True) + self.config.epsilon) * weight
        return normed

    def feed_forward(self, states: FloatArray, prefix: str) -> FloatArray:
        """Compute down(activation(gate) * up)."""
        gate, up = (states @ self.read(f"{prefix}{part}_proj.weight").T for part in ("gate", "up"))
        if self.config.activation == "silu":
            activated = gate / (1 + np.exp(-gate))
        else:
            activated = gate / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
        thought: FloatArray = (activated * up) @ self.read(f"{prefix}down_proj.weight").T
        return thought

    def attend(self, states: FloatArray, layer: int) -> FloatArray:
        """Let each token see itself and those before it, as far as the layer's window goes."""
        config, prefix = self.config, f"model.layers.{layer}.self_attn."
        windowed = config.sliding_window > 0 and (not config.windowed_layers or config.windowed_layers[layer])
        query, key, value = (self.project(states, f"{prefix}{part}") for part in "qkv")
        if config.query_key_norm:
            query, key = self.normalise(query, f"{prefix}q_norm"), self.normalise(key, f"{prefix}k_norm")
        cosines, sines = compute_angles(config, len(states), windowed)
        query, key = rotate(query, cosines, sines), rotate(key, cosines, sines)
        groups = config.heads // config.kv_heads
        key, value = key.repeat(groups, axis=0), value.repeat(groups, axis=0)
        scale = config.attention_scale or config.head_size**-0.5
        scores = cap(query @ key.swapaxes(1, 2) * scale, config.attention_softcap)
        distances = np.subtract.outer(np.arange(len(states)), np.arange(len(states)))
        hidden = (distances < 0) | (windowed & (distances >= config.sliding_window))
        scores = np.where(hidden, -np.inf, scores)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True)) @ value
        merged: FloatArray = mixed.swapaxes(0, 1).reshape(len(states), -1) @ self.read(f"{prefix}o_proj.weight").T
        return merged

    def project(self, states: FloatArray, name: str) -> FloatArray:
        """Project to heads, (heads, tokens, head size)."""
        projected = states @ self.read(f"{name}_proj.weight").T
        if self.config.attention_bias:
            projected += self.read(f"{name}_proj.bias")
        return projected.reshape(len(states), -1, self.config.head_size).swapaxes(0, 1)


def cap(values: FloatArray, limit: float) -> FloatArray:
    """Bend values so that none is beyond a limit; 0 for none."""
    return limit * np.tanh(values / limit) if limit else values


def rotate(heads: FloatArray, cosines: FloatArray, sines: FloatArray) -> FloatArray:
    """Rotate the pairs (i, i + half) of the first values of each head by their position's angle."""
    half = cosines.shape[1]
    first, second, rest = np.split(heads, [half, 2 * half], axis=2)
    turned = (first * cosines - second * sines, second * cosines + first * sines, rest)
    return np.concatenate(turned, axis=2)


def compute_angles(config: DecoderConfig, tokens: int, windowed: bool) -> tuple[FloatArray, FloatArray]:
    """Compute cosines and sines, (tokens, rotated values / 2)."""
    rotated = config.rotary_size or config.head_size
    own_base = windowed and config.windowed_rotary_base > 0
    base = config.windowed_rotary_base if own_base else config.rotary_base
    frequencies = base ** -(np.arange(0, rotated, 2) / rotated)
    if not own_base:
        frequencies = scale_frequencies(config, frequencies)
    angles = np.outer(np.arange(tokens), frequencies)
    factor = config.rotary_scaling.attention_factor if config.rotary_scaling and not own_base else 1.0
    return np.cos(angles) * factor, np.sin(angles) * factor


def scale_frequencies(config: DecoderConfig, frequencies: FloatArray) -> FloatArray:
    """Change the frequencies as `rope_scaling` says."""
    scaling = config.rotary_scaling
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    if scaling.kind == "longrope":
        return frequencies / np.array(scaling.factors, np.float64)
    turns = scaling.original_context * frequencies / (2 * np.pi)  # within the original context
    if scaling.kind == "llama3":
        kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    else:
        rotated = 2 * len(frequencies)
        low, high = (
            rotated * math.log(scaling.original_context / (each * 2 * math.pi)) / (2 * math.log(config.rotary_base))
            for each in (32, 1)
        )
        low, high = max(math.floor(low), 0), min(math.ceil(high), rotated - 1)
        kept = 1 - (np.arange(len(frequencies)) - low) / max(high - low, 0.001)
    kept = kept.clip(0, 1)
    return frequencies * kept + frequencies / scaling.factor * (1 - kept)
