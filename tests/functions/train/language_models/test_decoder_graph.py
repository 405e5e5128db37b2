"""The graph of a decoder against a decoder in torch, for each family that the writer knows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from functions.train.language_models.block_quantization import Bits, quantize_weight
from functions.train.language_models.checkpoint_source import read_decoder_checkpoint
from functions.train.language_models.decoder_config import DecoderConfig, FloatArray, RotaryScaling
from functions.train.language_models.decoder_graph import write_decoder_graph
from pilotlight.contracts.decoder import name_cache_inputs
from pilotlight.contracts.manifest import Precision
from pilotlight.errors import InvalidInputError
from tests.models.decoders.make import TOKENS as EXPECTED_OF
from tests.reference_decoder import ReferenceDecoder
from tests.tiny_checkpoints import CONFIGS, write_checkpoint
from tests.tiny_decoders import TINY_LLAMA, WeightTable, build_checkpoint, draw_weights

TOKENS = [3, 17, 200, 45, 45, 9, 310, 77, 12, 5, 250, 33]
CAPACITY = 24
CLOSE = 1e-4
EXPECTED = Path(__file__).parents[3] / "models" / "decoders" / "logits.npz"  # of transformers


def change(**changes: object) -> DecoderConfig:
    return replace(TINY_LLAMA, **changes)  # type: ignore[arg-type]  # they name its fields


FAMILIES = {
    "llama": TINY_LLAMA,
    "untied": change(tied=False),
    "one group": change(kv_heads=4),
    "qwen2": change(attention_bias=True),
    "qwen3": change(query_key_norm=True, head_size=32),
    "phi3": change(rotary_size=16, head_size=32, heads=2, kv_heads=2),
    "phi3 window": change(sliding_window=5),
    "linear": change(rotary_scaling=RotaryScaling("linear", 4.0)),
    "llama3": change(rotary_base=500.0, rotary_scaling=RotaryScaling("llama3", 8.0, 1.0, 4.0, 64)),
    "longrope": change(
        rotary_scaling=RotaryScaling("longrope", factors=tuple(np.linspace(1, 4, 8)), attention_factor=1.2)
    ),
    "yarn": change(rotary_scaling=RotaryScaling("yarn", 4.0, original_context=64, attention_factor=1.14)),
    "gemma": change(unit_offset_norm=True, activation="gelu_tanh", embedding_factor=8.0, head_size=32, kv_heads=1),
    "gemma2": change(
        unit_offset_norm=True, activation="gelu_tanh", embedding_factor=8.0, sandwich_norm=True, attention_softcap=2.0,
        logits_softcap=3.0, attention_scale=0.2, sliding_window=4, windowed_layers=(True, False),
    ),
    "gemma3": change(
        unit_offset_norm=True, activation="gelu_tanh", embedding_factor=8.0, sandwich_norm=True, query_key_norm=True,
        sliding_window=4, windowed_layers=(True, False), windowed_rotary_base=100.0, rotary_base=1000.0,
        rotary_scaling=RotaryScaling("linear", 2.0),
    ),
}  # fmt: skip


class GraphRunner:
    """Runs a graph, and keeps its cache from one run to the next."""

    def __init__(self, config: DecoderConfig, graph: Path, rows: int = 1, capacity: int = CAPACITY) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        shape = (rows, config.kv_heads, capacity, config.head_size)
        names = [name for layer in range(config.layers) for name in name_cache_inputs(layer)]
        self.cache = {name: np.zeros(shape, np.float32) for name in names}

    def run(self, tokens: list[list[int]], lengths: list[int], keep: int) -> FloatArray:
        """Run new tokens of each row, whose lengths are then these, and return the logits."""
        feeds = {
            "input_ids": np.array(tokens),
            "seqlens_k": np.array(lengths, np.int32) - 1,
            "total_sequence_length": np.array(max(lengths), np.int32),
            "keep": np.array([keep]),
        }
        logits, *present = self.session.run(None, feeds | self.cache)
        self.cache = dict(zip(self.cache, present, strict=True))
        return np.asarray(logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_graph_computes_what_the_reference_does(family: str, tmp_path: Path) -> None:
    config = FAMILIES[family]
    weights = draw_weights(config)
    files = write_decoder_graph(config, weights, "fp32", tmp_path)
    expected = ReferenceDecoder(build_checkpoint(config, weights)).compute_logits(TOKENS)
    whole = GraphRunner(config, files.graph).run([TOKENS], [len(TOKENS)], len(TOKENS))[0]
    np.testing.assert_allclose(whole, expected, atol=CLOSE)
    stepwise = GraphRunner(config, files.graph)
    single = [stepwise.run([[token]], [length], 1)[0, 0] for length, token in enumerate(TOKENS, 1)]
    np.testing.assert_allclose(single, expected, atol=CLOSE)
    chunked = GraphRunner(config, files.graph)
    chunked.run([TOKENS[:5]], [5], 1)
    np.testing.assert_allclose(chunked.run([TOKENS[5:]], [12], 7)[0], expected[5:], atol=CLOSE)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "phi3-longrope"])  # it rotates 12 values
def test_graph_of_a_folder_computes_what_transformers_does(name: str, tmp_path: Path) -> None:
    checkpoint = read_decoder_checkpoint(write_checkpoint(tmp_path, name))
    files = write_decoder_graph(checkpoint.config, checkpoint.weights, "fp32", tmp_path)
    logits = GraphRunner(checkpoint.config, files.graph, capacity=64).run([list(EXPECTED_OF)], [len(EXPECTED_OF)], 1)
    with np.load(EXPECTED) as expected:
        np.testing.assert_allclose(logits[0, 0], expected[name], rtol=1e-3, atol=CLOSE)


@pytest.mark.parametrize("keep", [1, 3, len(TOKENS)])
def test_only_the_last_rows_have_logits(keep: int, tmp_path: Path) -> None:
    weights = draw_weights(TINY_LLAMA)
    files = write_decoder_graph(TINY_LLAMA, weights, "fp32", tmp_path)
    logits = GraphRunner(TINY_LLAMA, files.graph).run([TOKENS], [len(TOKENS)], keep)
    expected = ReferenceDecoder(build_checkpoint(TINY_LLAMA, weights)).compute_logits(TOKENS)[-keep:]
    assert logits.shape == (1, keep, TINY_LLAMA.vocabulary_size)
    np.testing.assert_allclose(logits[0], expected, atol=CLOSE)


def test_rows_of_a_batch_have_lengths_of_their_own(tmp_path: Path) -> None:
    weights = draw_weights(TINY_LLAMA)
    files = write_decoder_graph(TINY_LLAMA, weights, "fp32", tmp_path)
    short, padding = TOKENS[:7], [0] * 5
    runner = GraphRunner(TINY_LLAMA, files.graph, rows=2)
    first = runner.run([TOKENS, short + padding], [12, 7], 12)
    more = runner.run([[8], [99]], [13, 8], 1)
    reference = ReferenceDecoder(build_checkpoint(TINY_LLAMA, weights))
    np.testing.assert_allclose(first[0], reference.compute_logits(TOKENS), atol=CLOSE)
    np.testing.assert_allclose(first[1, :7], reference.compute_logits(short), atol=CLOSE)
    np.testing.assert_allclose(more[0, 0], reference.compute_logits([*TOKENS, 8])[-1], atol=CLOSE)
    np.testing.assert_allclose(more[1, 0], reference.compute_logits([*short, 99])[-1], atol=CLOSE)


@pytest.mark.parametrize(("precision", "bits"), [("int8", 8), ("int4", 4)])
@pytest.mark.parametrize("family", ["llama", "untied", "qwen2", "gemma3"])
def test_quantized_graph_computes_with_the_quantized_weights(
    family: str, precision: Precision, bits: Bits, tmp_path: Path
) -> None:
    """What remains is the rounding of the inputs of each product to 8 bits."""
    config = FAMILIES[family]
    weights = draw_weights(config)
    files = write_decoder_graph(config, weights, precision, tmp_path)
    rounded = WeightTable(
        {
            name: quantize_weight(weight, 8 if name.startswith(("model.embed", "lm_head")) else bits)
            if weight.ndim == 2
            else weight
            for name, weight in weights.weights.items()
            if isinstance(weight, np.ndarray)
        }
    )
    expected = ReferenceDecoder(build_checkpoint(config, rounded)).compute_logits(TOKENS)
    unrounded = ReferenceDecoder(build_checkpoint(config, weights)).compute_logits(TOKENS)
    logits = GraphRunner(config, files.graph).run([TOKENS], [len(TOKENS)], len(TOKENS))[0]
    rounding = np.abs(logits - expected).mean()
    assert rounding < 0.03 * np.abs(expected).mean()
    if bits == 4:
        assert rounding < 0.2 * np.abs(expected - unrounded).mean()


@pytest.mark.parametrize(("changes", "told"), [({"head_size": 24}, "24"), ({"rotary_size": 8}, "8 of 16")])
def test_heads_that_the_operator_does_not_take_are_refused(
    changes: dict[str, object], told: str, tmp_path: Path
) -> None:
    config = change(**changes)
    with pytest.raises(InvalidInputError, match=rf"{told}.*multiple of 16"):
        write_decoder_graph(config, draw_weights(config), "fp32", tmp_path)


def test_context_limits_the_rotary_tables(tmp_path: Path) -> None:
    (tmp_path / "short").mkdir()
    weights = draw_weights(TINY_LLAMA)
    whole = write_decoder_graph(TINY_LLAMA, weights, "fp32", tmp_path)
    short = write_decoder_graph(TINY_LLAMA, weights, "fp32", tmp_path / "short", context=16)
    assert short.bytes < whole.bytes
    logits = GraphRunner(TINY_LLAMA, short.graph).run([TOKENS], [len(TOKENS)], 1)
    np.testing.assert_allclose(logits, GraphRunner(TINY_LLAMA, whole.graph).run([TOKENS], [len(TOKENS)], 1), atol=1e-6)


def test_head_and_embeddings_share_their_bytes(tmp_path: Path) -> None:
    """The table of a tied decoder lies in the file once, in each precision."""
    config = change(vocabulary_size=4096, layers=1)
    sizes: dict[Precision, float] = {"fp32": 4, "int8": 1.125, "int4": 1.125}
    for precision, bytes_per_weight in sizes.items():
        files = write_decoder_graph(config, draw_weights(config), precision, tmp_path)
        rest = config.width * (config.width * 3 + config.hidden_size * 3) * bytes_per_weight + 80_000
        assert files.weights.stat().st_size < config.vocabulary_size * config.width * bytes_per_weight + rest
