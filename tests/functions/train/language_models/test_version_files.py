"""A language model's version: which variant is served, what its files say, and what is refused before that."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tokenizers import Tokenizer

from functions.train.language_models import decoder_size, decoder_variants, text_scoring, version_files
from functions.train.language_models.__main__ import main
from functions.train.language_models.decoder_config import DecoderCheckpoint, DecoderConfig
from functions.train.language_models.decoder_variants import Quantize
from functions.train.language_models.text_scoring import TokenScores
from functions.train.language_models.version_files import PublishOptions
from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import ManifestDraft, Precision
from pilotlight.errors import InvalidInputError, TooLargeError, UnavailableError
from pilotlight.registry.registry import Registry
from pilotlight.runtime.golden import GoldenDocument
from pilotlight.runtime.golden_prompts import replay_prompts
from pilotlight.runtime.language_model_loading import open_language_model
from pilotlight.runtime.session import open_session
from pilotlight.storage.object_store import open_store
from tests.tiny_decoders import CORPUS, TINY_LLAMA, WeightTable, build_checkpoint, build_tokenizer_json, draw_weights


@pytest.fixture
def checkpoint(monkeypatch: pytest.MonkeyPatch) -> DecoderCheckpoint:
    """The checkpoint at any path, and a short text."""
    found = build_checkpoint()
    monkeypatch.setattr(version_files, "read_decoder_checkpoint", lambda path: found)
    return found


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text(" ".join(CORPUS * 20))
    return file


@pytest.mark.usefixtures("checkpoint")
@pytest.mark.parametrize(("quantize", "served"), [("none", "fp32"), ("int8", "int8"), ("int4", "int4")])
def test_what_is_asked_for_is_served(quantize: Quantize, served: Precision, text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "version"
    folder.mkdir()
    draft = version_files.write_version_files(text, PublishOptions("chat", quantize, text), folder)
    graph, weights = f"model.{served}.onnx", f"model.{served}.onnx.data"
    assert {file.name for file in folder.iterdir()} - {"golden.json"} == {
        graph, weights, "tokenizer.json", "chat_template.jinja", "report.json", "model-card.md", "draft.json"
    }  # fmt: skip
    assert (draft.task, draft.serve, draft.variants[served].weights) == ("generation", served, (weights,))
    assert draft == msgspec.json.decode((folder / "draft.json").read_bytes(), type=ManifestDraft)
    assert draft.decoder is not None
    assert (draft.decoder.context_length, draft.decoder.chat_template) == (256, "chat_template.jinja")
    assert draft.variants[served].metrics["perplexity"] > 1
    assert (draft.metric, draft.licence) == ("perplexity", "mit")
    assert open_session(str(folder / graph)).inputs[0].name == "input_ids"
    report = msgspec.json.decode((folder / "report.json").read_bytes())
    assert "fp32" in report["variants"]
    assert report["variants"][served]["metrics"]["perplexity"] == draft.variants[served].metrics["perplexity"]
    card = (folder / "model-card.md").read_text()
    assert "`tiny.gguf`" in card
    assert "text.txt" in card


@pytest.mark.usefixtures("checkpoint")
@pytest.mark.parametrize(
    ("losses", "served", "tried"),
    [
        ([2.0, 2.05, 2.005], "int8", ["int4", "int8"]),
        ([2.0, 2.009], "int4", ["int4"]),
        ([2.0, 2.05, 2.02], "fp32", ["int4", "int8"]),
    ],
)
def test_auto_serves_the_smallest_that_is_within_the_budget(
    losses: list[float], served: str, tried: list[str], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses of fp32, int4 and int8 are given here: 0.01 nats are 1 % of perplexity, which is the budget."""
    scores = (TokenScores(np.full(100, loss), np.zeros(100, np.int64)) for loss in losses)
    monkeypatch.setattr(text_scoring, "score_windows", lambda *_: next(scores))
    monkeypatch.setattr(decoder_variants, "measure_request_times", lambda sessions, feed: dict.fromkeys(sessions, 1.0))
    folder = tmp_path / "version"
    folder.mkdir()
    draft = version_files.write_version_files(text, PublishOptions("chat", "auto", text), folder)
    report = msgspec.json.decode((folder / "report.json").read_bytes())
    assert draft.serve == served
    assert report["verdict"].startswith(f"{served} is served: ")
    assert [one["precision"] for one in report["rungs"]] == tried
    graph = f"model.{served}.onnx"
    assert sorted(file.name for file in folder.glob("*.onnx*")) == [graph, f"{graph}.data"]


@pytest.mark.usefixtures("checkpoint")
def test_the_command_line_writes_the_same(text: Path, tmp_path: Path) -> None:
    words = ["model.gguf", "--name", "chat", "--into", str(tmp_path), "--quantize", "int8", "--context", "64"]
    assert main([*words, "--evaluation", str(text)]) == 0
    draft = msgspec.json.decode((tmp_path / "draft.json").read_bytes(), type=ManifestDraft)
    assert draft.decoder is not None
    assert draft.decoder.context_length == 64


@pytest.mark.usefixtures("checkpoint")
def test_a_context_beyond_the_models_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model.gguf", "--name", "chat", "--into", str(tmp_path), "--context", "257"]) == 2
    assert "--context 257 is not possible: the model was made for 2 to 256 tokens." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_context_is_cut_to_what_is_sensible() -> None:
    long = replace(TINY_LLAMA, context_length=131_072)
    assert decoder_size.choose_context(long, None) == decoder_size.DEFAULT_CONTEXT
    assert decoder_size.choose_context(long, 100_000) == 100_000


LARGE = replace(
    TINY_LLAMA, width=4096, hidden_size=14336, layers=32, heads=32, kv_heads=8, head_size=128, vocabulary_size=128_256,
    tied=False, context_length=8192,
)  # fmt: skip
HUGE = replace(LARGE, layers=80, width=8192, hidden_size=28672, heads=64)


@pytest.mark.parametrize(
    ("config", "quantize", "said"),
    [
        (replace(LARGE, context_length=32_768, layers=24), "int4", "for both; with --context 26176 it does."),
        (LARGE, "none", "for both; --quantize int4 takes 5,544 MB of weights."),
        (LARGE, "int8", "for both; with --context 2160 it does, or --quantize int4 takes 5,544 MB of weights."),
        (HUGE, "int4", "choose a smaller model"),
    ],
)
def test_what_no_function_holds_is_refused_with_what_would(
    config: DecoderConfig, quantize: Quantize, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = build_checkpoint()
    monkeypatch.setattr(version_files, "read_decoder_checkpoint", lambda path: replace(tiny, config=config))
    with pytest.raises(TooLargeError, match="No Lambda function holds the model") as caught:
        version_files.write_version_files(tmp_path, PublishOptions("chat", quantize), tmp_path)
    assert said in str(caught.value), str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_auto_comes_to_must_fit_too(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No quantized variant is good enough here, and fp32 is three times as large as what was asked before."""
    found = build_checkpoint(replace(TINY_LLAMA, vocabulary_size=4000))
    monkeypatch.setattr(version_files, "read_decoder_checkpoint", lambda path: found)
    monkeypatch.setattr(decoder_size, "LARGEST_MB", decoder_size.RUNTIME_MB + 1)
    scores = (TokenScores(np.full(100, loss), np.zeros(100, np.int64)) for loss in (2.0, 3.0, 3.0))
    monkeypatch.setattr(text_scoring, "score_windows", lambda *_: next(scores))
    with pytest.raises(TooLargeError, match="as fp32, its weights take 1 MB"):
        version_files.write_version_files(text, PublishOptions("chat", "auto", text, context=256), tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config": replace(TINY_LLAMA, hidden_size=80)}, "A weight of 80 columns cannot be quantized in blocks of 32"),
        ({"config": replace(TINY_LLAMA, heads=1, kv_heads=1)}, "A weight of 16 columns cannot be quantized"),
        ({"chat_template": "{% if %}"}, "template"),
    ],
)
def test_what_cannot_be_published_is_refused_before_anything_is_written(
    changes: dict[str, Any], said: str, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing and measuring fp32 takes minutes."""
    folder, found = tmp_path / "version", replace(build_checkpoint(), **changes)
    folder.mkdir()
    monkeypatch.setattr(version_files, "read_decoder_checkpoint", lambda path: found)
    with pytest.raises(InvalidInputError, match=said):
        version_files.write_version_files(text, PublishOptions("chat", "auto", text), folder)
    assert not list(folder.iterdir())


@pytest.mark.usefixtures("checkpoint")
def test_a_full_disk_is_told_before_it_is_full(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=320_000))
    with pytest.raises(UnavailableError, match=r"takes 0 MB of .*, and 0 MB are free; set TMPDIR"):
        version_files.write_version_files(text, PublishOptions("chat", "none", text), tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=330_000))
    assert version_files.write_version_files(text, PublishOptions("chat", "none", text), tmp_path).serve == "fp32"


def test_weights_that_are_no_numbers_are_refused(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = build_checkpoint()
    assert isinstance(found.weights, WeightTable)
    found.weights.weights["model.norm.weight"] = np.full(64, np.nan, np.float32)
    monkeypatch.setattr(version_files, "read_decoder_checkpoint", lambda path: found)
    with pytest.raises(InvalidInputError, match=r"tiny\.gguf gives tokens the probability NaN; its weights are dam"):
        version_files.write_version_files(text, PublishOptions("chat", "none", text), tmp_path)


def test_estimated_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    from functions.train.language_models.decoder_graph import write_decoder_graph

    config = replace(TINY_LLAMA, width=256, hidden_size=512, vocabulary_size=8000)
    precisions: tuple[Precision, ...] = ("fp32", "int8", "int4")
    for precision in precisions:
        written = write_decoder_graph(config, draw_weights(config), precision, tmp_path).bytes
        assert decoder_size.estimate_weight_bytes(config, precision) == pytest.approx(written, rel=0.05)


@pytest.mark.parametrize(
    ("tokenizer", "said"),
    [
        (b"{}", r"tiny\.gguf has a tokenizer that cannot be read: "),
        (build_tokenizer_json(), "has 1 tokens, .* beyond the 299 that the decoder knows"),
    ],
)
def test_a_tokenizer_that_does_not_belong_is_refused(tokenizer: bytes, said: str) -> None:
    assert Tokenizer.from_buffer(build_tokenizer_json()).get_vocab_size() == 300
    with pytest.raises(InvalidInputError, match=said):
        version_files.open_tokenizer(build_checkpoint(replace(TINY_LLAMA, vocabulary_size=299), tokenizer=tokenizer))


def test_a_version_is_opened_as_it_was_published(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that is sure of its tokens has golden prompts, and the loader replays them on the published files."""
    sure = build_checkpoint()
    assert isinstance(sure.weights, WeightTable)
    norm = sure.weights.weights["model.norm.weight"]
    assert isinstance(norm, np.ndarray)
    sure.weights.weights["model.norm.weight"] = norm * 30
    monkeypatch.setattr(version_files, "read_decoder_checkpoint", lambda path: sure)
    folder = tmp_path / "version"
    folder.mkdir()
    draft = version_files.write_version_files(text, PublishOptions("chat", "int8", text), folder)
    assert draft.golden == "golden.json"
    assert draft.generation_cost is not None
    store = open_store(str(tmp_path / "store"))
    files = {file.name: file for file in folder.iterdir() if file.name != "draft.json"}
    manifest = Registry(store).publish_version(draft, files)
    opened = open_language_model(store, manifest, memory_mb=1769, cache_bytes=0)
    document = decode_document((folder / "golden.json").read_bytes(), GoldenDocument, "golden.json")
    assert sum(len(prompt.expected) for prompt in document.prompts) >= 2
    replay_prompts(document, opened.model)
