"""A language model, small: from documents to a served version, and back over HTTP to the digit."""

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import tokenizers
import torch
from rich.console import Console
from torch.nn.functional import cross_entropy
from tritonclient import http

from functions.train.data import Array, corpus
from functions.train.data.dataset import Dataset
from functions.train.data.load import load_splits
from functions.train.data.split import Splits
from functions.train.data.tokenizer import Tokenizer
from functions.train.evaluation.metrics import evaluate_outputs, score_language_model
from functions.train.evaluation.model_card import format_details
from functions.train.evaluation.quantization_report import build_report_table, load_recorded_baseline
from functions.train.export import golden
from functions.train.export.onnx_export import export_onnx
from functions.train.export.quantization_search import QuantizationSearch
from functions.train.export.quantize import run_graph
from functions.train.language_models.checkpoint_source import read_decoder_checkpoint
from functions.train.pipeline import RunOutcome, run_recipe
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.errors import InvalidInputError
from pilotlight.gate.evaluation import QualityGate
from pilotlight.local.gateway import Gateway
from pilotlight.recipes.schema import QuantizationOptions, Recipe, load_recipe
from pilotlight.registry.registry import Registry, version_path
from pilotlight.runtime.session import open_session
from pilotlight.storage.object_store import ObjectStore, open_store
from tests.benchmarks.ngram_baseline import KneserNey, measure_baseline, score_ngram_model
from tests.functions.train.conftest import silence
from tests.functions.train.training.test_checkpoint import StopAt, assert_same, stopped, trained
from tests.reference_decoder import ReferenceDecoder

ROOT = Path(__file__).parents[3]
SMALL = (
    "name=small",
    "threads=1",
    "data.text={vocabulary: 400, window: 32}",
    "model={architecture: decoder, layers: 1, width: 32, heads: 4, kv_heads: 2, hidden: 48, context: 32}",
    "batch_size=128",
    "epochs=1",
    "optimiser.learning_rate=1e-2",
    "quantization.budget=null",
)


def small(*overrides: str) -> Recipe:
    """The recipe of record, shrunk to seconds."""
    return load_recipe("topics-lm", [*SMALL, *overrides])


@pytest.fixture(scope="module")
def sets() -> Splits:
    return load_splits(small().data)


@dataclass(frozen=True)
class Written:
    """A finished run, and the store it published to."""

    outcome: RunOutcome
    store: ObjectStore
    folder: Path

    def file(self, name: str) -> bytes:
        return self.store.get(version_path("small", 1, name)).data

    def evaluation(self) -> tuple[Array, Array]:
        with np.load(io.BytesIO(self.file("evaluation.npz")), allow_pickle=False) as arrays:
            assert sorted(arrays) == ["input_ids", "target"]
            return arrays["input_ids"], arrays["target"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("language") / "store"
    store = open_store(str(folder))
    return Written(run_recipe(small(), store, silence()), store, folder)


def test_the_trained_decoder_is_a_folder_that_is_published_to_write_texts(written: Written, tmp_path: Path) -> None:
    """It predicts what the version's own graph predicts."""
    run = f"runs/{written.outcome.run_name}/decoder/"
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes(written.store.get(run + name).data)
    inputs, _ = written.evaluation()
    variant = written.outcome.manifest.variants["fp32"]
    for path in (variant.graph, *variant.weights):
        (tmp_path / path).write_bytes(written.file(path))
    expected = run_graph(open_session(str(tmp_path / variant.graph)), inputs[:1])[0]
    logits = ReferenceDecoder(read_decoder_checkpoint(tmp_path)).compute_logits(inputs[0].tolist())
    np.testing.assert_allclose(logits, expected, atol=1e-3)


def test_each_token_is_answered_by_the_next(sets: Splits) -> None:
    for part, step in ((sets.train, 32), (sets.validation, 32), (sets.test, 32)):
        assert part.text is not None
        assert np.array_equal(part.inputs[:, 1:], part.targets[:, :-1])
        stream = part.text.tokens
        assert np.array_equal(part.inputs.ravel(), stream[: part.inputs.size])
        assert len(stream) - part.targets.size - 1 < step
        assert part.output_size == len(part.text.tokenizer.tokens) == 400


def test_windows_overlap_in_training_alone() -> None:
    sets = load_splits(small("data.text={vocabulary: 400, window: 32, stride: 8}").data)
    assert np.array_equal(sets.train.inputs[0, 8:], sets.train.inputs[1, :-8])
    assert np.array_equal(sets.test.targets[0, -1:], sets.test.inputs[1, :1])


def test_tokenizer_knows_the_training_documents_alone(sets: Splits) -> None:
    options = small().data
    documents, _ = corpus.load_documents("topics")
    parts = corpus.split_documents(documents, options.fractions, options.seed)
    assert sets.train.text
    assert sets.train.text.tokenizer.decode_tokens(sets.train.text.tokens.tolist()).count("<|endoftext|>") == len(
        parts["train"]
    )
    assert (
        sets.train.text.tokenizer.json_document
        == Tokenizer.train_from_texts(parts["train"].values(), 400).json_document
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "data.text.window=30000",
            r"data\.text\.window is 30000; it must be less than the [\d,]+ tokens of the \w+ set",
        ),
        ("data.calibration=100000", r"data\.calibration is 100000; there are \d+ training windows"),
    ],
)
def test_text_that_is_too_short_is_refused(override: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        load_splits(small(override).data)


def test_folds_of_a_text_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="folds must be null for the text 'topics'"):
        run_recipe(small("folds=5"), open_store("memory://"), silence())


def test_text_is_scored_as_torch_does(sets: Splits) -> None:
    assert sets.test.text
    random, part = np.random.default_rng(0), sets.test.select(np.arange(3))
    logits = random.normal(size=(3, 32, 400)).astype(np.float32)
    expected = cross_entropy(torch.from_numpy(logits).flatten(0, 1), torch.from_numpy(part.targets).flatten()).item()
    found = evaluate_outputs(logits, part)
    assert found.loss == found.metrics["loss"] == pytest.approx(expected, rel=1e-5)
    assert found.metrics["perplexity"] == pytest.approx(np.exp(expected), rel=1e-4)
    said = len(
        sets.test.text.tokenizer.decode_tokens(part.targets.ravel().tolist()).replace("<|endoftext|>", "").encode()
    )
    assert found.metrics["bits_per_byte"] == pytest.approx(expected * part.targets.size / np.log(2) / said, rel=1e-5)


def test_right_answers_are_counted_by_token() -> None:
    logits, targets = np.eye(4, dtype=np.float32)[None, [0, 1, 2, 2]], np.array([[0, 1, 2, 3]])
    assert score_language_model(logits, targets, np.ones(4, np.int64)).metrics["accuracy"] == 0.75


def test_interrupted_language_model_is_the_unbroken_one(sets: Splits) -> None:
    few = replace(sets, train=sets.train.select(np.arange(96)), validation=sets.validation.select(np.arange(8)))
    recipe = small("batch_size=16", "epochs=2", "model.dropout=0.1", "ema=0.9", "accumulation=2")
    unbroken = trained(recipe, few)
    assert_same(trained(recipe, few, StopAt(-1, stopped(recipe, few, 8))), unbroken)
    assert unbroken[1].epochs[0].tokens_per_s > 0


def test_version_says_what_it_is(written: Written) -> None:
    manifest, report = written.outcome.manifest, written.outcome.report
    tokens = manifest.outputs[0].shape[2]
    assert manifest.inputs == (TensorSpec("input_ids", "INT64", ("batch", "length")),)
    assert manifest.outputs == (TensorSpec("logits", "FP32", ("batch", "length", tokens)),)
    assert (manifest.metric, manifest.tokenizer, manifest.labels) == ("loss", "tokenizer.json", ())
    assert tokenizers.Tokenizer.from_str(written.file("tokenizer.json").decode()).get_vocab_size() == tokens
    assert manifest.parity is not None
    assert (manifest.parity.batches, manifest.parity.lengths) == ((1, 2, 7, 64), (1, 2, 7, 32))
    assert manifest.parity.max_abs <= 1e-4
    assert report.baseline is None  # it is recorded for the recipe's own data alone
    assert report.budget == 0.02  # the metric's own
    assert len(manifest.get_file("golden.json").sha256) == 64
    assert manifest.get_file("golden.json").bytes < 500_000


def test_gate_judges_it_in_nats_per_token(written: Written) -> None:
    verdict = QualityGate(Registry(written.store), memory_mb=1769).evaluate("small", 1, "contender", actor="ann")
    found = {check.name: check for check in verdict.checks}
    assert verdict.passed
    assert {"opens", "golden", "finite", "quantized"} <= set(found)
    assert "nats per token of loss, the budget is 0.0200" in found["quantized"].why
    lost = found["quantized"].numbers["points_lost"]
    assert lost == pytest.approx(written.outcome.report.points_lost, abs=1e-4)


def test_card_says_what_a_token_costs(written: Written) -> None:
    card = written.file("model-card.md").decode()
    report = written.outcome.report
    assert "guesses the next of 400 tokens of a text" in card
    assert "it guesses the same next token in" in card
    assert "Beside an n-gram model" not in card
    assert f"loses {report.points_lost:.4f} nats per token of loss, of a budget of 0.0200" in card
    assert "points" not in card


def test_seconds_of_training_beat_the_frequency_of_tokens(written: Written, sets: Splits) -> None:
    assert sets.train.text
    alone = score_ngram_model(KneserNey(sets.train.text.tokens, 400, 1), sets.test)
    report = written.outcome.report
    assert report.variants["fp32"].metrics["bits_per_byte"] < 0.95 * alone.bits_per_byte
    assert measure_baseline(sets).test.loss < alone.loss  # which is what it is named for


def test_report_and_card_show_the_recorded_baseline(written: Written) -> None:
    baseline = load_recorded_baseline(load_recipe("topics-lm").data)
    report = msgspec.structs.replace(written.outcome.report, baseline=baseline)
    details = format_details(report)
    assert details.startswith("### Beside an n-gram model\n\n")
    assert "; 3.6793 and 1.9330 of interpolated modified Kneser-Ney of order 5" in details
    console = Console(file=io.StringIO(), width=200)
    console.print(build_report_table(report))
    assert isinstance(console.file, io.StringIO)
    assert "3.6793 and 1.9330" in console.file.getvalue()


def test_run_keeps_what_the_model_writes(written: Written) -> None:
    sample = written.store.get(f"runs/{written.outcome.run_name}/sample.txt").data.decode()
    assert sample.startswith("<|endoftext|>")
    assert "|" in sample.removeprefix("<|endoftext|>")
    line = json.loads(written.store.get(f"runs/{written.outcome.run_name}/metrics.jsonl").data.splitlines()[0])
    assert line["tokens_per_s"] == pytest.approx(32 * line["examples_per_s"])


def test_graph_holds_products_of_four_bits(written: Written) -> None:
    manifest = written.outcome.manifest
    assert manifest.serve == "int4", written.outcome.report.verdict
    assert sorted(manifest.variants) == ["fp32", "int4"]
    graph = onnx.load_model_from_string(written.file("model.int4.onnx")).graph
    assert [node.op_type for node in graph.node].count("MatMulNBits") == 5  # of one block four, and the scores
    assert written.outcome.report.size_ratio < 1


def test_served_model_repeats_the_report_to_the_digit_over_http(written: Written) -> None:
    inputs, targets = written.evaluation()
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment={"PILOTLIGHT_STORE": str(written.folder)})
    with gateway.serve_in_background() as address:
        client = http.InferenceServerClient(address.removeprefix("http://"))
        logits = np.concatenate([infer(client, windows) for windows in np.array_split(inputs, 40)])
        client.close()
    manifest = written.outcome.manifest
    found = score_language_model(logits, targets, Tokenizer(read(written)).byte_lengths)
    assert found.metrics.items() <= manifest.variants[manifest.serve].metrics.items()


def read(written: Written) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(written.file("tokenizer.json").decode())


def infer(client: http.InferenceServerClient, windows: Array) -> Array:
    """What the served model answers, as binary tensors both ways."""
    given = http.InferInput("input_ids", list(windows.shape), "INT64")
    given.set_data_from_numpy(windows)
    answer = client.infer("small", [given], outputs=[http.InferRequestedOutput("logits", binary_data=True)])
    return np.asarray(answer.as_numpy("logits"))


def test_golden_requests_are_short_prompts(written: Written, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(written.file("model.int4.onnx"))
    golden.verify_recorded_answers(written.file("golden.json"), path)
    exchanges = json.loads(written.file("golden.json"))["exchanges"]
    assert [exchange["request"]["inputs"][0]["shape"] for exchange in exchanges] == [[1, 1], [1, 4], [3, 2]]
    assert all(isinstance(token, int) for exchange in exchanges for token in exchange["request"]["inputs"][0]["data"])


def test_answer_depends_on_no_other_in_the_batch(written: Written, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(written.file("model.int4.onnx"))
    session, windows = open_session(str(path)), written.evaluation()[0][:5]
    alone = np.concatenate([run_graph(session, window[None]) for window in windows])
    assert np.array_equal(run_graph(session, windows), alone)


def test_longer_than_the_context_is_refused(written: Written, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(written.file("model.int4.onnx"))
    with pytest.raises(InvalidInputError, match="refused the input"):
        run_graph(open_session(str(path)), np.zeros((1, 33), np.int64))


def test_four_bits_that_lose_too_much_fall_to_eight(sets: Splits, tmp_path: Path) -> None:
    network, _ = trained(small("batch_size=512"), sets)
    graph, path = tmp_path / "model.fp32.onnx", tmp_path / "model.smaller.onnx"
    export_onnx(network, sets.train, small().export, graph)
    few = sets.validation.select(np.arange(20))
    rungs = Strict(graph, sets.calibration.inputs, few, QuantizationOptions(scheme="weight-only")).search(path)
    assert [(rung.precision, rung.holds) for rung in rungs] == [("int4", False), ("int8", True)]
    assert rungs[0].plan == "weight-only int4 in blocks of 32"
    assert "more than the budget of 0.0200" in rungs[0].why
    assert {"MatMulInteger"} <= {node.op_type for node in onnx.load(path).graph.node}


class Strict(QuantizationSearch):
    """A ladder on which four bits lose a nat per token."""

    def measure_metric(self, graph: Path) -> float:
        four = any(node.op_type == "MatMulNBits" for node in onnx.load(graph).graph.node)
        return super().measure_metric(graph) + four


def test_dataset_of_tokens_hashes_them(sets: Splits) -> None:
    first, second = (part_of(sets.test, count) for count in (3, 4))
    assert first.sha256 != second.sha256
    assert len(sets.sha256) == 64


def part_of(data: Dataset, count: int) -> Dataset:
    return data.select(np.arange(count))
