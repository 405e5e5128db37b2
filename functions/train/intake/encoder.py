"""A Transformer encoder of BERT's shape in torch, with the names that Hugging Face's checkpoints use.

Devlin and others, BERT, 2019: embeddings of words, places and segments, then layers of attention and a feed-forward
part, each added to its input and normalised after it. RoBERTa counts places from behind the padding; DistilBERT leaves
segments out. Dropout is not there, since nothing is trained here. It knows tensors, neither files nor graphs.
"""

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

    kind: Literal["bert", "roberta", "distilbert"]
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


class Encoder(nn.Module):
    """Token ids and mask (batch, tokens) to states (batch, tokens, width), or to logits (batch, classes)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings = Embeddings(shape)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.head = Head(shape) if shape.classes else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """The states of all tokens, or the logits; the mask is 1 for tokens and 0 for padding."""
        states = self.embeddings(input_ids, attention_mask, token_type_ids)
        bias = (1.0 - attention_mask[:, None, None, :].to(states.dtype)) * MASKED
        for layer in self.layers:
            states = layer(states, bias)
        answer: Tensor = states if self.head is None else self.head(states[:, 0])
        return answer


class Embeddings(nn.Module):
    """Words, places and segments, added and normalised."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.words, shape.width)
        self.position_embeddings = nn.Embedding(shape.places, shape.width)
        self.token_type_embeddings = nn.Embedding(shape.segments, shape.width) if shape.segments else None
        self.norm = nn.LayerNorm(shape.width, eps=shape.epsilon)
        self.counted, self.padding = shape.kind == "roberta", shape.padding

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
        """(batch, tokens) to (batch, tokens, width)."""
        found = self.word_embeddings(ids) + self.position_embeddings(self.places(ids))
        if self.token_type_embeddings is not None:
            found = found + self.token_type_embeddings(torch.zeros_like(ids) if types is None else types)
        normed: Tensor = self.norm(found)
        return normed

    def places(self, ids: Tensor) -> Tensor:
        """Each token's place: its index; for RoBERTa the number of tokens up to it, on top of the padding's id."""
        if not self.counted:
            return torch.arange(ids.shape[1], device=ids.device)[None]
        tokens = (ids != self.padding).to(torch.int64)
        return torch.cumsum(tokens, dim=1) * tokens + self.padding


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
        """(batch, tokens, width), and (batch, 1, 1, tokens) to add to the scores."""
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
    """The first token's state to logits: a product, tanh (ReLU in DistilBERT), a product."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dense, self.classifier = nn.Linear(shape.width, shape.width), nn.Linear(shape.width, shape.classes)
        self.activation = functional.relu if shape.kind == "distilbert" else torch.tanh

    def forward(self, first: Tensor) -> Tensor:
        """(batch, width) to (batch, classes)."""
        logits: Tensor = self.classifier(self.activation(self.dense(first)))
        return logits
