"""The weights that a decoder must have, by name and shape, and the refusal of files that have others.

A weight that the decoder has no use for is refused too, since a model with more in it than is computed answers wrongly.
"""

from collections.abc import Collection, Iterator, Mapping

from functions.train.language_models.decoder_config import DecoderConfig
from pilotlight.errors import InvalidInputError

Shape = tuple[int, ...]
EMBEDDINGS, HEAD, LAST_NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
MAX_NAMED = 3  # weights that a message names


def list_weight_shapes(config: DecoderConfig) -> dict[str, Shape]:
    """List the weights by name."""
    embeddings = (config.vocabulary_size, config.width)
    shapes = {EMBEDDINGS: embeddings, LAST_NORM: (config.width,)}
    if not config.tied:
        shapes[HEAD] = embeddings
    for layer in range(config.layers):
        prefix = f"model.layers.{layer}."
        shapes |= {prefix + part: shape for part, shape in iterate_layer_shapes(config)}
    return shapes


def iterate_layer_shapes(config: DecoderConfig) -> Iterator[tuple[str, Shape]]:
    """Iterate over the weights of a layer, without its prefix."""
    width, hidden = config.width, config.hidden_size
    queries, keys = config.heads * config.head_size, config.kv_heads * config.head_size
    yield "input_layernorm.weight", (width,)
    yield "post_attention_layernorm.weight", (width,)
    if config.sandwich_norm:
        yield "pre_feedforward_layernorm.weight", (width,)
        yield "post_feedforward_layernorm.weight", (width,)
    for part, rows in (("q", queries), ("k", keys), ("v", keys)):
        yield f"self_attn.{part}_proj.weight", (rows, width)
        if config.attention_bias:
            yield f"self_attn.{part}_proj.bias", (rows,)
    if config.query_key_norm:
        yield "self_attn.q_norm.weight", (config.head_size,)
        yield "self_attn.k_norm.weight", (config.head_size,)
    yield "self_attn.o_proj.weight", (width, queries)
    yield "mlp.gate_proj.weight", (hidden, width)
    yield "mlp.up_proj.weight", (hidden, width)
    yield "mlp.down_proj.weight", (width, hidden)


def check_weights(origin: str, config: DecoderConfig, found: Mapping[str, Shape], unused: Collection[str] = ()) -> None:
    """Check the weights of a file; `InvalidInputError` names those that are missing, of another shape or too many."""
    expected = list_weight_shapes(config)
    if missing := [name for name in expected if name not in found]:
        raise InvalidInputError(
            f"{origin} has no weight {format_names(missing)}, which a {config.family} model of {config.layers} layers "
            "has; it is incomplete, or its configuration is another model's."
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise InvalidInputError(
                f"{origin}: the weight {name} is {list(found[name])}; its configuration asks for {list(shape)}."
            )
    if extra := [*unused, *(name for name in found if name not in expected)]:
        raise InvalidInputError(
            f"{origin} has the weight {format_names(extra)}, which a {config.family} model does not have; adapters, "
            "experts and other heads are not read."
        )


def format_names(names: list[str]) -> str:
    """Format some names for a message: the first of them, and how many more there are."""
    shown = ", ".join(names[:MAX_NAMED])
    return shown if len(names) <= MAX_NAMED else f"{shown} and {len(names) - MAX_NAMED} more"
