"""A Transformer encoder of BERT's architecture in torch, with the names of Hugging Face's checkpoints.

Devlin and others, BERT, 2019: embeddings of words, positions and segments, then layers of attention and a feed-forward
part, each added to its input and normalised after it. RoBERTa counts positions from the padding's id; DistilBERT has no
segments; ELECTRA (Clark and others, 2020) widens narrow embeddings; MPNet (Song and others, 2020) adds a bias for the
distance of two tokens to their score. There is no dropout, since nothing is trained here. The module knows tensors, not
files or graphs.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": functional.gelu,
    "gelu_new": partial(functional.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
    "silu": functional.silu,
}
MASKED_SCORE = torch.finfo(torch.float32).min  # added to the score of a padding token


@dataclass(frozen=True)
class EncoderConfig:
    """The sizes and choices of an encoder."""

    kind: Literal["bert", "roberta", "distilbert", "electra", "mpnet"]
    vocabulary_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    feed_forward_size: int  # width between the two products of the feed-forward part
    max_positions: int
    num_segments: int  # 0 if there are none
    epsilon: float
    activation: str
    padding_id: int  # id of the padding, from which RoBERTa's positions count
    num_classes: int = 0  # 0: the answer is the states of the tokens
    embedding_size: int = 0  # width of the embeddings; 0: that of the layers
    num_distance_buckets: int = 0  # number of buckets for distances of tokens; 0: distances are not used


class TransformerEncoder(nn.Module):
    """Maps token ids and mask (batch, tokens) to states (batch, tokens, width), or to logits (batch, classes)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = EncoderEmbeddings(config)
        narrow = config.embedding_size not in {0, config.hidden_size}
        self.widen = nn.Linear(config.embedding_size, config.hidden_size) if narrow else None
        self.distances = RelativePositionBias(config) if config.num_distance_buckets else None
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.head = ClassificationHead(config) if config.num_classes else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Compute the states of all tokens, or the logits; the mask is 1 for tokens and 0 for padding."""
        states = self.embeddings(input_ids, attention_mask, token_type_ids)
        if self.widen is not None:
            states = self.widen(states)
        bias = (1.0 - attention_mask[:, None, None, :].to(states.dtype)) * MASKED_SCORE
        if self.distances is not None:
            bias = bias + self.distances(input_ids.shape[1])
        for layer in self.layers:
            states = layer(states, bias)
        answer: Tensor = states if self.head is None else self.head(states[:, 0])
        return answer


class EncoderEmbeddings(nn.Module):
    """Embeddings of words, positions and segments, added and normalised."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.embedding_size or config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocabulary_size, width)
        self.position_embeddings = nn.Embedding(config.max_positions, width)
        self.token_type_embeddings = nn.Embedding(config.num_segments, width) if config.num_segments else None
        self.norm = nn.LayerNorm(width, eps=config.epsilon)
        self.counts_from_padding, self.padding_id = config.kind in {"roberta", "mpnet"}, config.padding_id

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
        """Embed (batch, tokens) to (batch, tokens, width)."""
        embedded = self.word_embeddings(ids) + self.position_embeddings(self.compute_position_ids(ids))
        if self.token_type_embeddings is not None:
            embedded = embedded + self.token_type_embeddings(torch.zeros_like(ids) if types is None else types)
        normed: Tensor = self.norm(embedded)
        return normed

    def compute_position_ids(self, ids: Tensor) -> Tensor:
        """Compute positions: the index; for RoBERTa and MPNet the count of tokens so far plus the padding's id."""
        if not self.counts_from_padding:
            return torch.arange(ids.shape[1], device=ids.device)[None]
        tokens = (ids != self.padding_id).to(torch.int64)
        return torch.cumsum(tokens, dim=1) * tokens + self.padding_id


class RelativePositionBias(nn.Module):
    """A bias for each head and each distance of two tokens, in buckets that widen with the distance.

    Raffel and others, T5, 2020, section 2.1: one half of the buckets is for tokens before, the other for tokens after.
    The near part of a half has a bucket for each distance; those of the far part widen by a constant factor, up to
    `MAX_DISTANCE`, and the last one contains everything beyond.
    """

    MAX_DISTANCE = 128  # tokens

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.bias = nn.Embedding(config.num_distance_buckets, config.num_heads)
        self.buckets_per_side = config.num_distance_buckets // 2

    def forward(self, tokens: int) -> Tensor:
        """Compute the biases to add to the scores, (1, heads, tokens, tokens)."""
        index = torch.arange(tokens, device=self.bias.weight.device)
        biases: Tensor = self.bias(self.assign_buckets(index[None, :] - index[:, None]))
        return biases.permute(2, 0, 1)[None]

    def assign_buckets(self, offset: Tensor) -> Tensor:
        """Assign a bucket to each offset, the other token's position minus this one's."""
        exact = self.buckets_per_side // 2
        far = offset.abs().clamp(min=1)
        grown = torch.log(far.float() / exact) / math.log(self.MAX_DISTANCE / exact) * (self.buckets_per_side - exact)
        beyond = (exact + grown.to(torch.int64)).clamp(max=self.buckets_per_side - 1)
        buckets: Tensor = torch.where(offset.abs() < exact, offset.abs(), beyond) + (offset > 0) * self.buckets_per_side
        return buckets


class EncoderLayer(nn.Module):
    """Attention, then the feed-forward part, each added to its input and normalised."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.query, self.key, self.value, self.out = (
            nn.Linear(config.hidden_size, config.hidden_size) for _ in range(4)
        )
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.epsilon)
        self.wide, self.narrow = (
            nn.Linear(config.hidden_size, config.feed_forward_size),
            nn.Linear(config.feed_forward_size, config.hidden_size),
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.epsilon)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        """Apply the layer to (batch, tokens, width); the bias is (batch, 1 or heads, 1 or tokens, tokens)."""
        states = self.attention_norm(states + self.compute_attention(states, bias))
        outputs: Tensor = self.norm(states + self.narrow(self.activation(self.wide(states))))
        return outputs

    def compute_attention(self, states: Tensor, bias: Tensor) -> Tensor:
        """Compute softmax(q k / sqrt(d) + bias) v of each head, concatenate, and apply the last product."""
        batch, tokens, width = states.shape
        queries, keys, values = (
            part(states).view(batch, tokens, self.num_heads, width // self.num_heads).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        scores = queries @ keys.transpose(2, 3) * (width // self.num_heads) ** -0.5 + bias
        mixed = torch.softmax(scores, dim=-1) @ values
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out


class ClassificationHead(nn.Module):
    """Maps the first token's state to logits: a product, tanh (ReLU in DistilBERT, GELU in ELECTRA), a product."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense, self.classifier = (
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.Linear(config.hidden_size, config.num_classes),
        )
        special: Mapping[str, Activation] = {"distilbert": functional.relu, "electra": functional.gelu}
        self.activation = special.get(config.kind, torch.tanh)

    def forward(self, first: Tensor) -> Tensor:
        """Map (batch, width) to (batch, classes)."""
        logits: Tensor = self.classifier(self.activation(self.dense(first)))
        return logits
