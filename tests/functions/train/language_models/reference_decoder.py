"""A decoder in torch, written as its papers put it: without cache, without onnxruntime's operators, in fp64."""

import math

import numpy as np
import torch
from torch import Tensor

from functions.train.language_models.decoder_config import DecoderConfig, DecoderWeights, FloatArray, QuantizedBlocks
from functions.train.language_models.rotary_tables import compute_rotary_tables


class ReferenceDecoder:
    """Computes the logits of each token of one sequence."""

    def __init__(self, config: DecoderConfig, weights: DecoderWeights) -> None:
        self.config = config
        self.weights = weights

    def read(self, name: str) -> Tensor:
        weight = self.weights.read(name)
        array = weight.dequantize() if isinstance(weight, QuantizedBlocks) else weight
        return torch.from_numpy(array).double()

    def compute_logits(self, tokens: list[int]) -> FloatArray:
        """Return (tokens, vocabulary)."""
        config = self.config
        embeddings = self.read("model.embed_tokens.weight")
        states = embeddings[tokens] * config.embedding_factor
        for layer in range(config.layers):
            prefix = f"model.layers.{layer}"
            attended = self.attend(self.normalize(states, f"{prefix}.input_layernorm"), layer)
            if config.sandwich_norm:
                attended = self.normalize(attended, f"{prefix}.post_attention_layernorm")
            states = states + attended
            before = "pre_feedforward_layernorm" if config.sandwich_norm else "post_attention_layernorm"
            fed = self.feed_forward(self.normalize(states, f"{prefix}.{before}"), prefix)
            if config.sandwich_norm:
                fed = self.normalize(fed, f"{prefix}.post_feedforward_layernorm")
            states = states + fed
        head = embeddings if config.tied else self.read("lm_head.weight")
        logits = self.normalize(states, "model.norm") @ head.T
        if config.logits_softcap:
            logits = torch.tanh(logits / config.logits_softcap) * config.logits_softcap
        return logits.float().numpy()

    def normalize(self, states: Tensor, name: str) -> Tensor:
        weight = self.read(f"{name}.weight") + (1 if self.config.unit_offset_norm else 0)
        return states / torch.sqrt((states**2).mean(-1, keepdim=True) + self.config.epsilon) * weight

    def project(self, states: Tensor, name: str) -> Tensor:
        result = states @ self.read(f"{name}.weight").T
        return result + self.read(f"{name}.bias") if f"{name}.bias" in self.weights else result

    def attend(self, states: Tensor, layer: int) -> Tensor:
        config, part = self.config, f"model.layers.{layer}.self_attn"
        count = len(states)
        query, key, value = (
            self.project(states, f"{part}.{letter}_proj").reshape(count, -1, config.head_size).transpose(0, 1)
            for letter in "qkv"
        )
        if config.query_key_norm:
            query, key = self.normalize(query, f"{part}.q_norm"), self.normalize(key, f"{part}.k_norm")
        windowed = bool(config.sliding_window) and (not config.windowed_layers or config.windowed_layers[layer])
        query, key = (self.rotate(one, windowed=windowed) for one in (query, key))
        groups = config.heads // config.kv_heads
        key, value = (one.repeat_interleave(groups, 0) for one in (key, value))
        scores = query @ key.transpose(1, 2) * (config.attention_scale or 1 / math.sqrt(config.head_size))
        if config.attention_softcap:
            scores = torch.tanh(scores / config.attention_softcap) * config.attention_softcap
        distance = torch.arange(count)[:, None] - torch.arange(count)[None]
        hidden = (distance < 0) | (distance >= config.sliding_window if windowed else False)
        attention = torch.softmax(scores.masked_fill(hidden, -torch.inf), -1)
        return self.project((attention @ value).transpose(0, 1).reshape(count, -1), f"{part}.o_proj")

    def rotate(self, heads: Tensor, *, windowed: bool) -> Tensor:
        """Rotate pairs of the first and second half of what is rotated."""
        size = self.config.rotary_size or self.config.head_size
        tables = compute_rotary_tables(self.config, heads.shape[1], windowed=windowed)
        cosines, sines = (torch.from_numpy(table.astype(np.float64)) for table in tables)
        first, second, rest = heads[..., : size // 2], heads[..., size // 2 : size], heads[..., size:]
        return torch.cat([first * cosines - second * sines, second * cosines + first * sines, rest], -1)

    def feed_forward(self, states: Tensor, prefix: str) -> Tensor:
        gate, up = (self.project(states, f"{prefix}.mlp.{name}_proj") for name in ("gate", "up"))
        if self.config.activation == "silu":
            activated = gate * torch.sigmoid(gate)
        else:
            activated = 0.5 * gate * (1 + torch.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
        return self.project(activated * up, f"{prefix}.mlp.down_proj")
