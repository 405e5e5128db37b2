"""The decoder: a language model of Llama's shape (Touvron et al., 2023) that predicts each token from those before it.

RMSNorm before each step (Zhang and Sennrich, 2019), rotary positions (Su et al., 2021), SwiGLU (Shazeer, 2020) and
grouped-query attention (Ainslie et al., 2023); no biases. Nothing in it waits for a GPU.
"""

import torch
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from functions.train.models.image_shape import describe_shape
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import DecoderOptions

INIT_STD = 0.02  # of the weights as drawn (Radford et al., 2019)
RotaryAngles = tuple[torch.Tensor, torch.Tensor]  # cosines and sines, (length, d / 2) each


def build_decoder_layers(options: DecoderOptions, input_shape: tuple[int, ...], output_size: int) -> list[nn.Module]:
    """Build (N, T) tokens to (N, T, outputs); `InvalidInputError` when the windows are longer than the context."""
    if len(input_shape) != 1:
        raise InvalidInputError(
            f"model.architecture is 'decoder', which takes windows of tokens, not {describe_shape(input_shape)}."
        )
    if input_shape[0] > options.context:
        raise InvalidInputError(
            f"model.context is {options.context}; it must be at least the {input_shape[0]} tokens of data.window."
        )
    return [Decoder(options, output_size)]


class Decoder(nn.Module):
    """A language model. Where the embeddings are tied, the same matrix reads tokens in and scores them at the end."""

    cosines: torch.Tensor  # (context, d / 2), with d the width of a head
    sines: torch.Tensor

    def __init__(self, options: DecoderOptions, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, options.width)
        self.drop = nn.Dropout(options.dropout)
        self.blocks = nn.ModuleList(DecoderBlock(options) for _ in range(options.layers))
        self.norm = nn.RMSNorm(options.width, options.epsilon)
        self.head = None if options.tied else nn.Linear(options.width, vocabulary, bias=False)
        cosines, sines = compute_rotary_angles(options.context, options.width // options.heads, options.base)
        self.register_buffer("cosines", cosines, persistent=False)  # computed anew, not stored
        self.register_buffer("sines", sines, persistent=False)
        initialise_weights(self, options.layers)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map (N, T) int64, T up to the context, to logits (N, T, vocabulary) of the token that follows each."""
        matrix = self.embedding.weight if self.head is None else self.head.weight
        return linear(self.compute_hidden_states(tokens), matrix)

    def compute_hidden_states(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map (N, T) tokens to the normalised output of the last block, (N, T, width)."""
        length = tokens.shape[1]
        angles = self.cosines[:length], self.sines[:length]
        states = self.drop(self.embedding(tokens))
        for block in self.blocks:
            states = block(states, angles)
        normed: torch.Tensor = self.norm(states)
        return normed


class DecoderBlock(nn.Module):
    """x + attention(norm(x)), then x + swiglu(norm(x))."""

    def __init__(self, options: DecoderOptions) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(options.width, options.epsilon)
        self.attention = GroupedQueryAttention(options)
        self.dense_norm = nn.RMSNorm(options.width, options.epsilon)
        self.dense = SwiGlu(options)
        self.drop = nn.Dropout(options.dropout)

    def forward(self, states: torch.Tensor, angles: RotaryAngles) -> torch.Tensor:
        """Map (N, T, width) to the same shape."""
        attended = states + self.drop(self.attention(self.attention_norm(states), angles))
        thought: torch.Tensor = attended + self.drop(self.dense(self.dense_norm(attended)))
        return thought


class GroupedQueryAttention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V, a token seeing itself and those before; `heads / kv_heads` queries share keys."""

    def __init__(self, options: DecoderOptions) -> None:
        super().__init__()
        self.head_size = options.width // options.heads  # d
        self.head_counts = (options.heads, options.kv_heads, options.kv_heads)  # of queries, keys and values
        self.project = nn.Linear(options.width, sum(self.head_counts) * self.head_size, bias=False)
        self.merge = nn.Linear(options.width, options.width, bias=False)

    def forward(self, states: torch.Tensor, angles: RotaryAngles) -> torch.Tensor:
        """Map (N, T, width) to the same shape."""
        split = self.project(states).unflatten(2, (-1, self.head_size)).transpose(1, 2)  # (N, heads, T, d)
        query, key, value = split.split(self.head_counts, dim=1)
        query, key = apply_rotary_angles(query, angles), apply_rotary_angles(key, angles)
        grouped = self.head_counts[0] != self.head_counts[1]
        attended = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped)
        merged: torch.Tensor = self.merge(attended.transpose(1, 2).flatten(2))
        return merged


class SwiGlu(nn.Module):
    """W3 (silu(W1 x) * W2 x), with W1 and W2 as one matrix."""

    def __init__(self, options: DecoderOptions) -> None:
        super().__init__()
        self.widen = nn.Linear(options.width, 2 * options.hidden, bias=False)
        self.merge = nn.Linear(options.hidden, options.width, bias=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Map (N, T, width) to the same shape."""
        gate, up = self.widen(states).chunk(2, dim=-1)
        merged: torch.Tensor = self.merge(silu(gate) * up)
        return merged


def compute_rotary_angles(context: int, head_size: int, base: float) -> RotaryAngles:
    """Compute cosine and sine of position * base^(-2 i / size) for each position and each pair i of a head's values."""
    frequencies = base ** -(torch.arange(0, head_size, 2, dtype=torch.float64) / head_size)
    angles = torch.outer(torch.arange(context, dtype=torch.float64), frequencies)
    return angles.cos().float(), angles.sin().float()


def apply_rotary_angles(heads: torch.Tensor, angles: RotaryAngles) -> torch.Tensor:
    """Rotate the pair (i, i + d / 2) of each vector of (N, heads, T, d) by its position's angle, in fp32.

    The pairs are those of Hugging Face's Llama; the paper's are (2 i, 2 i + 1).
    """
    (cosines, sines), (first, second) = angles, heads.chunk(2, dim=-1)
    turned = torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1)
    return turned.to(heads.dtype)


def initialise_weights(decoder: Decoder, depth: int) -> None:
    """Draw the weights; those that add to the residual are smaller, by the square root of their number (GPT-2)."""
    for name, weight in decoder.named_parameters():
        if weight.ndim == 2:
            adds = name.endswith("merge.weight")
            nn.init.normal_(weight, std=INIT_STD / (2 * depth) ** 0.5 if adds else INIT_STD)
