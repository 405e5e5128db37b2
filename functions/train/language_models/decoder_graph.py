"""Write the ONNX graph of a decoder, for onnxruntime's operators, from its configuration and its weights.

One writer serves Hugging Face folders, GGUF files and our own decoder. The graph's tensors are those of
`pilotlight.contracts.decoder`: the key-value cache is extended in place, and only the last rows have logits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from functions.train.language_models.decoder_config import DecoderConfig, DecoderWeights, FloatArray
from functions.train.language_models.graph_builder import MICROSOFT, GraphBuilder
from functions.train.language_models.linear_layers import LinearLayers
from functions.train.language_models.rotary_tables import compute_rotary_tables
from pilotlight.contracts import decoder as tensors
from pilotlight.contracts.manifest import Precision
from pilotlight.errors import InvalidInputError

LAST_ROW = np.iinfo(np.int64).max  # the end of a Slice that goes to the end
TOKEN_AXIS = 1
HEAD_STEP = 16  # GroupQueryAttention takes heads of a multiple of it
GRAPH_NAME, WEIGHTS_NAME = "model.{precision}.onnx", "model.{precision}.onnx.data"
Report = Callable[[str], None]


@dataclass(frozen=True)
class GraphFiles:
    """A variant's graph, and the file beside it that holds its weights."""

    graph: Path
    weights: Path

    @property
    def bytes(self) -> int:
        """The size of both."""
        return self.graph.stat().st_size + self.weights.stat().st_size

    def remove(self) -> None:
        """Remove both files."""
        for file in (self.graph, self.weights):
            file.unlink(missing_ok=True)


def write_decoder_graph(
    config: DecoderConfig,
    weights: DecoderWeights,
    precision: Precision,
    folder: Path,
    context: int | None = None,
    report: Report = lambda _: None,
) -> GraphFiles:
    """Write a variant's graph and weights to a folder; `context` tokens have rotary tables, by default all.

    Weights are read once each, in order, and written at once; `report` gets a line for each layer.
    """
    check_head_sizes(config)
    names = (pattern.format(precision=precision) for pattern in (GRAPH_NAME, WEIGHTS_NAME))
    files = GraphFiles(*(folder / name for name in names))
    with files.weights.open("wb") as file:
        builder = GraphBuilder(file, files.weights.name)
        writer = DecoderGraphWriter(config, builder, LinearLayers(builder, weights, precision), context)
        writer.write(report)
    builder.save(files.graph, list_inputs(config), list_outputs(config), {"precision": precision})
    return files


def check_head_sizes(config: DecoderConfig) -> None:
    """Refuse heads that GroupQueryAttention does not take."""
    if config.head_size % HEAD_STEP:
        raise InvalidInputError(
            f"The decoder's heads have {config.head_size} values; onnxruntime's attention takes a multiple of "
            f"{HEAD_STEP}."
        )
    if config.rotary_size % HEAD_STEP:
        raise InvalidInputError(
            f"The decoder rotates {config.rotary_size} of {config.head_size} values of a head; onnxruntime's attention "
            f"takes a multiple of {HEAD_STEP}."
        )


class DecoderGraphWriter:
    """Adds the layers of a decoder to a graph, one after another."""

    def __init__(
        self, config: DecoderConfig, builder: GraphBuilder, linear: LinearLayers, context: int | None = None
    ) -> None:
        """Keep the decoder's shape and where to write it."""
        self._config = config
        self._builder = builder
        self._linear = linear
        self._context = context or config.context_length

    def write(self, report: Report) -> None:
        """Add all nodes, from token ids to logits.

        `states` is the sum of all layers so far, and `added` what the last one adds to it: the norm behind adds both.
        """
        config = self._config
        self._add_shared_constants()
        states, added = self._add_embedding(), ""
        for layer in range(config.layers):
            report(f"layer {layer + 1} of {config.layers}")
            prefix = f"model.layers.{layer}"
            normed, states = self._add_norm(states, added, f"{prefix}.input_layernorm")
            added = self._add_attention(normed, layer, prefix)
            if config.sandwich_norm:
                added, _ = self._add_norm(added, "", f"{prefix}.post_attention_layernorm")
            name = "pre_feedforward_layernorm" if config.sandwich_norm else "post_attention_layernorm"
            normed, states = self._add_norm(states, added, f"{prefix}.{name}")
            added = self._add_feed_forward(normed, prefix)
            if config.sandwich_norm:
                added, _ = self._add_norm(added, "", f"{prefix}.post_feedforward_layernorm")
        normed, _ = self._add_norm(states, added, "model.norm")
        self._add_logits(normed)

    def _add_shared_constants(self) -> None:
        config, add = self._config, self._builder.add_constant
        for windowed in {self._is_windowed(layer) for layer in range(config.layers)}:
            cosines, sines = compute_rotary_tables(config, self._context, windowed=windowed)
            add(self._name_rotary_table("cosines", windowed=windowed), cosines)
            add(self._name_rotary_table("sines", windowed=windowed), sines)
        add("keep/end", np.array([LAST_ROW]))
        add("keep/axis", np.array([TOKEN_AXIS]))
        add("gate_up/sizes", np.array([config.hidden_size, config.hidden_size]))

    def _add_embedding(self) -> str:
        factor = self._config.embedding_factor
        output = "embedding"
        looked_up = output if factor == 1.0 else f"{output}/looked_up"
        self._linear.add_embedding(tensors.INPUT_IDS, "model.embed_tokens.weight", looked_up)
        return output if factor == 1.0 else self._add_factor(looked_up, factor, output)

    def _add_factor(self, source: str, factor: float, output: str) -> str:
        constant = self._builder.add_constant(f"{output}/factor", np.array(factor, np.float32))
        return self._builder.add_node("Mul", [source, constant], output)

    def _add_norm(self, states: str, added: str, name: str) -> tuple[str, str]:
        """Add RMSNorm of the sum of both, and return its result and the sum."""
        gain = self._builder.add_constant(f"{name}.weight", self._read_gain(f"{name}.weight"))
        epsilon = self._config.epsilon
        if not added:
            node = self._builder.add_node(
                "SimplifiedLayerNormalization", [states, gain], name, epsilon=epsilon, axis=-1
            )
            return node, states
        total = f"{name}/sum"
        self._builder.add_node(
            "SkipSimplifiedLayerNormalization", [states, added, gain], [name, "", "", total], MICROSOFT, epsilon=epsilon
        )
        return name, total

    def _read_gain(self, name: str) -> FloatArray:
        """Read what a norm multiplies by: its weight, or in some families 1 more than it."""
        weight = self._linear.read_matrix(name)
        return weight + np.float32(1) if self._config.unit_offset_norm else weight

    def _is_windowed(self, layer: int) -> bool:
        config = self._config
        return config.sliding_window > 0 and (config.windowed_layers[layer] if config.windowed_layers else True)

    def _name_rotary_table(self, function: str, *, windowed: bool) -> str:
        return f"rotary/{'windowed_' * (windowed and self._config.windowed_rotary_base > 0)}{function}"

    def _add_attention(self, source: str, layer: int, prefix: str) -> str:
        """Add attention with its projections; queries, keys and values are split only where norms come between."""
        config, windowed = self._config, self._is_windowed(layer)
        part = f"{prefix}.self_attn"
        joined = self._linear.add_projection(source, [f"{part}.{name}_proj" for name in "qkv"], f"{part}.qkv_proj")
        sources = self._add_query_key_norms(joined, part) if config.query_key_norm else (joined, "", "")
        optional: dict[str, float] = {"softcap": config.attention_softcap, "scale": config.attention_scale}
        attributes = {name: value for name, value in optional.items() if value}
        if windowed:
            attributes["local_window_size"] = config.sliding_window
        attended = self._builder.add_node(
            "GroupQueryAttention",
            [
                *sources,
                *tensors.name_cache_inputs(layer),
                tensors.SEQUENCE_LENGTHS,
                tensors.TOTAL_LENGTH,
                self._name_rotary_table("cosines", windowed=windowed),
                self._name_rotary_table("sines", windowed=windowed),
            ],
            [f"{part}/attended", *tensors.name_cache_outputs(layer)],
            MICROSOFT,
            num_heads=config.heads,
            kv_num_heads=config.kv_heads,
            do_rotary=1,
            **attributes,
        )
        return self._linear.add_projection(attended, [f"{part}.o_proj"], f"{part}.o_proj")

    def _add_query_key_norms(self, joined: str, part: str) -> tuple[str, str, str]:
        """Split queries, keys and values, and add the norm of each head's queries and keys."""
        config = self._config
        query_size, key_size = (heads * config.head_size for heads in (config.heads, config.kv_heads))
        sizes = self._builder.add_constant("query_key_value/sizes", np.array([query_size, key_size, key_size]))
        query, key, value = (f"{part}/{name}" for name in ("query", "key", "value"))
        self._builder.add_node("Split", [joined, sizes], [query, key, value], axis=-1)
        return self._add_head_norm(query, f"{part}.q_norm"), self._add_head_norm(key, f"{part}.k_norm"), value

    def _add_head_norm(self, source: str, name: str) -> str:
        by_head = self._builder.add_constant("heads/shape", np.array([0, 0, -1, self._config.head_size]))
        joined = self._builder.add_constant("heads/joined_shape", np.array([0, 0, -1]))
        heads = self._builder.add_node("Reshape", [source, by_head], f"{name}/heads")
        normed, _ = self._add_norm(heads, "", name)
        return self._builder.add_node("Reshape", [normed, joined], f"{name}/joined")

    def _add_feed_forward(self, source: str, prefix: str) -> str:
        part, add_node = f"{prefix}.mlp", self._builder.add_node
        joined = self._linear.add_projection(source, [f"{part}.{name}_proj" for name in ("gate", "up")], f"{part}.both")
        gate, up = add_node("Split", [joined, "gate_up/sizes"], [f"{part}/gate", f"{part}/up"], axis=-1), f"{part}/up"
        if self._config.activation == "silu":
            activated = add_node("QuickGelu", [gate], f"{part}/activated", MICROSOFT, alpha=1.0)  # x * sigmoid(x)
        else:
            activated = add_node("Gelu", [gate], f"{part}/activated", approximate="tanh")
        product = add_node("Mul", [activated, up], f"{part}/product")
        return self._linear.add_projection(product, [f"{part}.down_proj"], f"{part}.down_proj")

    def _add_logits(self, normed: str) -> None:
        """Add the head, for the last `keep` rows."""
        config, add_node = self._config, self._builder.add_node
        start = add_node("Neg", [tensors.KEEP], "keep/start")
        kept = add_node("Slice", [normed, start, "keep/end", "keep/axis"], "kept_states")
        head = "model.embed_tokens.weight" if config.tied else "lm_head.weight"
        cap = config.logits_softcap
        logits = self._linear.add_head(kept, head, "logits/uncapped" if cap else tensors.LOGITS)
        if cap:
            bounded = add_node("Tanh", [self._add_factor(logits, 1 / cap, "logits/scaled")], "logits/bounded")
            self._add_factor(bounded, cap, tensors.LOGITS)


def list_inputs(config: DecoderConfig) -> list[onnx.ValueInfoProto]:
    """List the inputs of the graph."""
    make, cache = helper.make_tensor_value_info, build_cache_shape(config)
    return [
        make(tensors.INPUT_IDS, TensorProto.INT64, ["batch", "tokens"]),
        make(tensors.SEQUENCE_LENGTHS, TensorProto.INT32, ["batch"]),
        make(tensors.TOTAL_LENGTH, TensorProto.INT32, []),
        make(tensors.KEEP, TensorProto.INT64, [1]),
        *(
            make(name, TensorProto.FLOAT, cache)
            for layer in range(config.layers)
            for name in tensors.name_cache_inputs(layer)
        ),
    ]


def list_outputs(config: DecoderConfig) -> list[onnx.ValueInfoProto]:
    """List the outputs of the graph."""
    make, cache = helper.make_tensor_value_info, build_cache_shape(config)
    return [
        make(tensors.LOGITS, TensorProto.FLOAT, ["batch", "kept", config.vocabulary_size]),
        *(
            make(name, TensorProto.FLOAT, cache)
            for layer in range(config.layers)
            for name in tensors.name_cache_outputs(layer)
        ),
    ]


def build_cache_shape(config: DecoderConfig) -> list[int | str]:
    """Build the shape of a layer's keys or values."""
    return ["batch", config.kv_heads, "capacity", config.head_size]
