"""Tiny decoders with seeded weights, and a version of one with a tokenizer, a chat template and its graphs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from functions.train.language_models.decoder_config import (
    DecoderCheckpoint,
    DecoderConfig,
    DecoderWeights,
    FloatArray,
    Weight,
)
from functions.train.language_models.decoder_graph import write_decoder_graph
from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.contracts.manifest import Precision
from pilotlight.errors import InvalidInputError

BEGIN, END, TURN = "<|begin|>", "<|end|>", "<|turn|>"
SPECIAL_TOKENS = {"bos_token": BEGIN, "eos_token": END}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|turn|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
CORPUS = [
    "the cat sat on the mat, and the dog sat on the cat",
    "hello world, what is this and that",
    '{"name": "text"}',
]

TINY_LLAMA = DecoderConfig(
    family="llama", vocabulary_size=320, width=64, hidden_size=96, layers=2, heads=4, kv_heads=2, head_size=16,
    context_length=256,
)  # fmt: skip


@dataclass(frozen=True)
class TinyDecoder:
    """The folder of a version's files, and what its manifest says of them."""

    folder: Path
    spec: DecoderSpec
    graphs: dict[Precision, Path]
    tokenizer: Path


class WeightTable(DecoderWeights):
    """Weights in memory."""

    def __init__(self, weights: dict[str, Weight]) -> None:
        self.weights = weights

    def __contains__(self, name: object) -> bool:
        return name in self.weights

    def read(self, name: str) -> Weight:
        if name not in self.weights:
            raise InvalidInputError(f"There is no weight {name!r}.")
        return self.weights[name]


def build_checkpoint(
    config: DecoderConfig = TINY_LLAMA, weights: DecoderWeights | None = None, tokenizer: bytes = b""
) -> DecoderCheckpoint:
    """Build the checkpoint of a decoder, by default with drawn weights and the tokenizer of bytes."""
    return DecoderCheckpoint(
        config=config,
        weights=weights or draw_weights(config),
        tokenizer_json=tokenizer or build_tokenizer_json(),
        end_tokens=(1,),
        begin_token=0,
        chat_template=CHAT_TEMPLATE,
        special_tokens=SPECIAL_TOKENS,
        origin="models/tiny.gguf",
        licence="mit",
    )


def draw_weights(config: DecoderConfig, seed: int = 0) -> WeightTable:
    """Draw weights of a decoder; norms are near 1, and matrices keep the size of what goes through them."""
    generator = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...]) -> FloatArray:
        scale = 0.1 if len(shape) == 1 else shape[-1] ** -0.5
        return (generator.standard_normal(shape) * scale).astype(np.float32)

    return WeightTable(
        {
            name: draw(shape) + np.float32("norm" in name and not config.unit_offset_norm)
            for name, shape in iterate_shapes(config)
        }
    )


def iterate_shapes(config: DecoderConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Iterate over the names and shapes of all weights."""
    width, hidden = config.width, config.hidden_size
    sizes = {"q": config.heads * config.head_size, "k": config.kv_heads * config.head_size}
    sizes["v"] = sizes["k"]
    yield "model.embed_tokens.weight", (config.vocabulary_size, width)
    yield "model.norm.weight", (width,)
    if not config.tied:
        yield "lm_head.weight", (config.vocabulary_size, width)
    norms = ["input_layernorm", "post_attention_layernorm"]
    norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"] if config.sandwich_norm else []
    for layer in range(config.layers):
        prefix = f"model.layers.{layer}"
        for norm in norms:
            yield f"{prefix}.{norm}.weight", (width,)
        for letter, size in sizes.items():
            yield f"{prefix}.self_attn.{letter}_proj.weight", (size, width)
            if config.attention_bias:
                yield f"{prefix}.self_attn.{letter}_proj.bias", (size,)
        for letter in "qk" if config.query_key_norm else "":
            yield f"{prefix}.self_attn.{letter}_norm.weight", (config.head_size,)
        yield f"{prefix}.self_attn.o_proj.weight", (width, sizes["q"])
        yield f"{prefix}.mlp.gate_proj.weight", (hidden, width)
        yield f"{prefix}.mlp.up_proj.weight", (hidden, width)
        yield f"{prefix}.mlp.down_proj.weight", (width, hidden)


def build_tokenizer_json(vocabulary_size: int = 300) -> bytes:
    """Train a tokenizer of bytes with a few merges and three special tokens, always the same."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size, special_tokens=[BEGIN, END, TURN], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(CORPUS, trainer)
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False).encode()


def write_tiny_decoder(
    folder: Path,
    precisions: tuple[Precision, ...] = ("fp32",),
    config: DecoderConfig = TINY_LLAMA,
    seed: int = 0,
    **changes: object,
) -> TinyDecoder:
    """Write graphs, tokenizer and chat template to a folder; `changes` are to the configuration, as `layers=1`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = replace(config, **changes)  # type: ignore[arg-type]  # the caller names fields of it
    weights = draw_weights(config, seed)
    graphs = {precision: write_decoder_graph(config, weights, precision, folder).graph for precision in precisions}
    tokenizer, template = folder / "tokenizer.json", folder / "chat_template.jinja"
    tokenizer.write_bytes(build_tokenizer_json())
    template.write_text(CHAT_TEMPLATE)
    spec = DecoderSpec(
        family=config.family,
        context_length=config.context_length,
        vocabulary_size=config.vocabulary_size,
        layers=config.layers,
        kv_heads=config.kv_heads,
        head_size=config.head_size,
        end_tokens=(1,),
        begin_token=0,
        chat_template=template.name,
        special_tokens=SPECIAL_TOKENS,
    )
    return TinyDecoder(folder, spec, graphs, tokenizer)
