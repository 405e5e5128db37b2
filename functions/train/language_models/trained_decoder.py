"""Our own decoder, as trained by the job, as a language model that the same graph serves.

It has Llama's shape (`functions.train.models.decoder`), so that only its weights' names differ, and what is fused in
them: queries, keys and values are one matrix, gate and up another.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from functions.train.data.tokenizer import END_OF_TEXT, Tokenizer
from functions.train.language_models.decoder_config import DecoderCheckpoint, DecoderConfig, FloatArray, Weight
from functions.train.language_models.weight_shapes import EMBEDDINGS, HEAD, LAST_NORM, check_weights
from functions.train.models.decoder import Decoder
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import DecoderOptions

FAMILY = "pilotlight-decoder"
BLOCK_NAME = re.compile(r"blocks\.(?P<layer>\d+)\.(?P<part>[\w.]+)\.weight")
OTHER_NAMES = {"embedding.weight": EMBEDDINGS, "norm.weight": LAST_NORM, "head.weight": HEAD}
PARTS = {
    "attention_norm": ("input_layernorm",),
    "attention.project": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.merge": ("self_attn.o_proj",),
    "dense_norm": ("post_attention_layernorm",),
    "dense.widen": ("mlp.gate_proj", "mlp.up_proj"),
    "dense.merge": ("mlp.down_proj",),
}


@dataclass(frozen=True)
class TrainedWeights:
    """The weights of a decoder in memory, by Llama's names."""

    tensors: Mapping[str, torch.Tensor]

    def __contains__(self, name: object) -> bool:
        """Return whether there is a weight of this name."""
        return name in self.tensors

    def read(self, name: str) -> Weight:
        """Read a weight; `InvalidInputError` if there is none of this name."""
        if name not in self.tensors:
            raise InvalidInputError(f"The trained decoder has no weight {name}.")
        whole: FloatArray = self.tensors[name].detach().to("cpu", torch.float32).contiguous().numpy()
        return whole


def describe_trained_decoder(
    model: nn.Module, options: DecoderOptions, tokenizer: Tokenizer, origin: str
) -> DecoderCheckpoint:
    """Describe a trained model, of which the decoder is a part; its documents begin and end with `END_OF_TEXT`."""
    decoder = next((part for part in model.modules() if isinstance(part, Decoder)), None)
    if decoder is None:
        raise InvalidInputError(f"{origin} is no decoder; only language models write text.")
    config = build_trained_config(options, decoder.embedding.num_embeddings)
    tensors = name_trained_weights(decoder.state_dict(), config)
    check_weights(origin, config, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    end = tokenizer.tokens.index(END_OF_TEXT)
    return DecoderCheckpoint(
        config=config,
        weights=TrainedWeights(tensors),
        tokenizer_json=tokenizer.json_document.encode(),
        end_tokens=(end,),
        begin_token=end,
        chat_template=None,
        special_tokens={"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT},
        origin=origin,
    )


def build_trained_config(options: DecoderOptions, vocabulary: int) -> DecoderConfig:
    """Build the shape of a decoder out of a recipe's options."""
    return DecoderConfig(
        family=FAMILY,
        vocabulary_size=vocabulary,
        width=options.width,
        hidden_size=options.hidden,
        layers=options.layers,
        heads=options.heads,
        kv_heads=options.kv_heads,
        head_size=options.width // options.heads,
        context_length=options.context,
        epsilon=options.epsilon,
        tied=options.tied,
        rotary_base=options.base,
    )


def name_trained_weights(state: Mapping[str, torch.Tensor], config: DecoderConfig) -> dict[str, torch.Tensor]:
    """Name the weights as Llama's, and split what is fused."""
    queries, keys = config.heads * config.head_size, config.kv_heads * config.head_size
    rows = {"attention.project": [queries, keys, keys], "dense.widen": [config.hidden_size] * 2}
    named = {}
    for name, tensor in state.items():
        match = BLOCK_NAME.fullmatch(name)
        if match is None:
            named[OTHER_NAMES.get(name, name)] = tensor
            continue
        parts, prefix = PARTS.get(match["part"], (match["part"],)), f"model.layers.{match['layer']}."
        pieces = torch.split(tensor, rows.get(match["part"], [len(tensor)]))
        named |= {f"{prefix}{part}.weight": piece for part, piece in zip(parts, pieces, strict=True)}
    return named
