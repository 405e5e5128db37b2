"""The shape of a decoder and its weights, whatever file they come from: what the graph is written of.

Weights have Hugging Face's names of Llama: `model.embed_tokens.weight`, `model.norm.weight`, `lm_head.weight`, and
`model.layers.N.` with `input_layernorm`, `self_attn.{q,k,v,o}_proj`, `self_attn.{q,k}_norm`,
`post_attention_layernorm`, `pre_feedforward_layernorm`, `post_feedforward_layernorm`, `mlp.{gate,up,down}_proj`. A
reader of another layout renames, and splits what is fused (Phi's `qkv_proj` and `gate_up_proj`).
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
MAX_LAYERS = 1000  # that a file may say: no model has more, and a damaged number would be listed layer by layer


@dataclass(frozen=True)
class RotaryScaling:
    """How rotary frequencies are changed for longer contexts, as `rope_scaling` of config.json says."""

    kind: Literal["linear", "llama3", "longrope", "yarn"]
    factor: float = 1.0
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    original_context: int = 0
    factors: tuple[float, ...] = ()  # longrope, one of each pair of a head's values
    attention_factor: float = 1.0  # times cosine and sine


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The sizes of a decoder, and how its family differs from Llama."""

    family: str
    vocabulary_size: int
    width: int  # of the hidden states
    hidden_size: int  # of the feed-forward layer
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    context_length: int
    epsilon: float = 1e-5
    activation: Literal["silu", "gelu_tanh"] = "silu"  # of the gate
    tied: bool = True  # whether the embeddings are the head too
    rotary_base: float = 10000.0
    rotary_size: int = 0  # values of a head that are rotated; 0 for all (Phi: partial_rotary_factor)
    rotary_scaling: RotaryScaling | None = None
    attention_bias: bool = False  # of q, k and v (Qwen2)
    query_key_norm: bool = False  # RMSNorm of each head's queries and keys (Qwen3, Gemma3)
    unit_offset_norm: bool = False  # norms multiply by 1 + weight (Gemma)
    sandwich_norm: bool = False  # norms after attention and feed-forward too (Gemma2, Gemma3)
    embedding_factor: float = 1.0  # times the embeddings (Gemma: the square root of the width)
    attention_scale: float = 0.0  # times query . key; 0 for 1 / sqrt(head_size) (Gemma2: query_pre_attn_scalar)
    attention_softcap: float = 0.0  # Gemma2; 0 for none
    logits_softcap: float = 0.0  # Gemma2
    sliding_window: int = 0  # tokens that windowed layers see; 0 for all
    windowed_layers: tuple[bool, ...] = ()  # by layer; empty: all, if there is a window
    windowed_rotary_base: float = 0.0  # of windowed layers (Gemma3); 0 for `rotary_base`


@dataclass(frozen=True)
class QuantizedBlocks:
    """A matrix (rows, columns) in blocks of `block` columns with one scale each: value = scale * (q - zero point).

    `values` holds each q as a byte, (rows, columns): 0..15 with zero point 8 for 4 bits (GGUF's Q4_0), 0..255 with zero
    point 128 for 8 (Q8_0's int8 plus 128). `scales` is (rows, columns / block).
    """

    bits: Literal[4, 8]
    block: int
    values: npt.NDArray[np.uint8]
    scales: FloatArray

    def dequantize(self) -> FloatArray:
        """Compute the matrix."""
        rows, columns = self.values.shape
        centred = self.values.reshape(rows, -1, self.block).astype(np.float32) - (1 << (self.bits - 1))
        whole: FloatArray = (centred * self.scales[:, :, None]).reshape(rows, columns)
        return whole


Weight = FloatArray | QuantizedBlocks


class DecoderWeights(Protocol):
    """The weights of a decoder by name, read one at a time, since all of them may be larger than memory."""

    def __contains__(self, name: object) -> bool:
        """Return whether there is a weight of this name."""

    def read(self, name: str) -> Weight:
        """Read a weight: fp32, or blocks that are to be kept as they are; `InvalidInputError` if there is none."""


@dataclass(frozen=True, kw_only=True)
class DecoderCheckpoint:
    """A language model as its files describe it."""

    config: DecoderConfig
    weights: DecoderWeights
    tokenizer_json: bytes
    end_tokens: tuple[int, ...]
    begin_token: int | None
    chat_template: str | None
    special_tokens: dict[str, str]
    origin: str  # the file or folder, for messages and the model card
    licence: str | None = None
