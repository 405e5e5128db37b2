"""A Transformer encoder of BERT's shape in torch, with the names that Hugging Face's checkpoints use.

Devlin and others, BERT, 2019: embeddings of words, places and segments, then layers of attention and a feed-forward
part, each added to its input and normalised after it. RoBERTa counts places from behind the padding; DistilBERT leaves
segments out; ELECTRA (Clark and others, 2020) widens narrow embeddings; MPNet (Song and others, 2020) adds a number for
the distance of two tokens to their score. Dropout is not there, since nothing is trained here. It knows tensors, not
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
MASKED = torch.finfo(torch.float32).min  # added to the score of a token of padding


@dataclass(frozen=True)
class Shape:
    """The sizes and choices of an encoder."""

    kind: Literal["bert", "roberta", "distilbert", "electra", "mpnet"]
    words: int
    width: int
    layers: int
    heads: int
    inner: int  # width between the two products of the feed-forward part
    places: int
    segments: int  # 0 where there are none
    epsilon: float
    activation: str
    padding: int  # id of the padding, from which RoBERTa's places count
    classes: int = 0  # 0: the states of the tokens are the answer
    embedding: int = 0  # width of the embeddings; 0: that of the layers
    distances: int = 0  # how many buckets distances of tokens fall into; 0: distances count for nothing


class Encoder(nn.Module):
    """Token ids and mask (batch, tokens) to states (batch, tokens, width), or to logits (batch, classes)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings = Embeddings(shape)
        narrow = shape.embedding not in {0, shape.width}
        self.widen = nn.Linear(shape.embedding, shape.width) if narrow else None
        self.distances = Distances(shape) if shape.distances else None
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.head = Head(shape) if shape.classes else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """The states of all tokens, or the logits; the mask is 1 for tokens and 0 for padding."""
        states = self.embeddings(input_ids, attention_mask, token_type_ids)
        if self.widen is not None:
            states = self.widen(states)
        bias = (1.0 - attention_mask[:, None, None, :].to(states.dtype)) * MASKED
        if self.distances is not None:
            bias = bias + self.distances(input_ids.shape[1])
        for layer in self.layers:
            states = layer(states, bias)
        answer: Tensor = states if self.head is None else self.head(states[:, 0])
        return answer


class Embeddings(nn.Module):
    """Words, places and segments, added and normalised."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.embedding or shape.width
        self.word_embeddings = nn.Embedding(shape.words, width)
        self.position_embeddings = nn.Embedding(shape.places, width)
        self.token_type_embeddings = nn.Embedding(shape.segments, width) if shape.segments else None
        self.norm = nn.LayerNorm(width, eps=shape.epsilon)
        self.counted, self.padding = shape.kind in {"roberta", "mpnet"}, shape.padding

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
        """(batch, tokens) to (batch, tokens, width)."""
        found = self.word_embeddings(ids) + self.position_embeddings(self.places(ids))
        if self.token_type_embeddings is not None:
            found = found + self.token_type_embeddings(torch.zeros_like(ids) if types is None else types)
        normed: Tensor = self.norm(found)
        return normed

    def places(self, ids: Tensor) -> Tensor:
        """Each token's place: its index; for RoBERTa and MPNet the number of tokens up to it, plus the padding's id."""
        if not self.counted:
            return torch.arange(ids.shape[1], device=ids.device)[None]
        tokens = (ids != self.padding).to(torch.int64)
        return torch.cumsum(tokens, dim=1) * tokens + self.padding


class Distances(nn.Module):
    """A number for each head and each distance of two tokens, by buckets that grow with the distance.

    Raffel and others, T5, 2020, section 2.1: one side of the buckets is for tokens before, the other for tokens behind.
    The near half of a side has a bucket for each distance; those of the far half widen by a constant factor, up to
    `FARTHEST`, and the last one holds all that lies beyond.
    """

    FARTHEST = 128  # tokens

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.bias = nn.Embedding(shape.distances, shape.heads)
        self.side = shape.distances // 2

    def forward(self, tokens: int) -> Tensor:
        """(1, heads, tokens, tokens), to add to the scores."""
        index = torch.arange(tokens, device=self.bias.weight.device)
        found: Tensor = self.bias(self.bucket(index[None, :] - index[:, None]))
        return found.permute(2, 0, 1)[None]

    def bucket(self, offset: Tensor) -> Tensor:
        """The bucket of each offset, where the other token stands minus where this one does."""
        exact = self.side // 2
        far = offset.abs().clamp(min=1)
        grown = torch.log(far.float() / exact) / math.log(self.FARTHEST / exact) * (self.side - exact)
        beyond = (exact + grown.to(torch.int64)).clamp(max=self.side - 1)
        found: Tensor = torch.where(offset.abs() < exact, offset.abs(), beyond) + (offset > 0) * self.side
        return found


class Layer(nn.Module):
    """Attention, then the feed-forward part, each added to its input and normalised."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query, self.key, self.value, self.out = (nn.Linear(shape.width, shape.width) for _ in range(4))
        self.attention_norm = nn.LayerNorm(shape.width, eps=shape.epsilon)
        self.wide, self.narrow = nn.Linear(shape.width, shape.inner), nn.Linear(shape.inner, shape.width)
        self.norm = nn.LayerNorm(shape.width, eps=shape.epsilon)
        self.activation = ACTIVATIONS[shape.activation]

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        """(batch, tokens, width), and what to add to the scores, (batch, 1 or heads, 1 or tokens, tokens)."""
        states = self.attention_norm(states + self.attended(states, bias))
        found: Tensor = self.norm(states + self.narrow(self.activation(self.wide(states))))
        return found

    def attended(self, states: Tensor, bias: Tensor) -> Tensor:
        """softmax(q k / sqrt(d) + bias) v of each head, side by side, and through the last product."""
        batch, tokens, width = states.shape
        queries, keys, values = (
            part(states).view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        scores = queries @ keys.transpose(2, 3) * (width // self.heads) ** -0.5 + bias
        mixed = torch.softmax(scores, dim=-1) @ values
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out


class Head(nn.Module):
    """The first token's state to logits: a product, tanh (ReLU in DistilBERT, GELU in ELECTRA), a product."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dense, self.classifier = nn.Linear(shape.width, shape.width), nn.Linear(shape.width, shape.classes)
        special: Mapping[str, Activation] = {"distilbert": functional.relu, "electra": functional.gelu}
        self.activation = special.get(shape.kind, torch.tanh)

    def forward(self, first: Tensor) -> Tensor:
        """(batch, width) to (batch, classes)."""
        logits: Tensor = self.classifier(self.activation(self.dense(first)))
        return logits
