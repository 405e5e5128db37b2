"""A whole run: what is in the version, what is in the run's folder, and what is nowhere when it fails."""

import io
import json
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from functions.train import pipeline as protocol
from functions.train import publish
from functions.train.__main__ import build_train_parser, format_outcome_json, main
from functions.train.data.dataset import Dataset
from functions.train.data.split import Splits
from functions.train.distributed.process_group import ProcessGroup
from functions.train.errors import DivergedError, NotPublishableError, ParityError
from functions.train.evaluation.metrics import score_outputs
from functions.train.evaluation.quantization_report import QuantizationReport, build_report_table
from functions.train.export import golden
from functions.train.export.quantization_search import QuantizationSearch
from functions.train.pipeline import run_recipe
from functions.train.publish import describe_git_commit, get_code_revision
from functions.train.training.trainer import Checkpointer, train_model
from functions.train.training.training_history import EpochMetrics, TrainingHistory
from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import Manifest, TensorSpec
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import StoreError
from pilotlight.recipes import schema
from pilotlight.recipes.schema import Recipe
from pilotlight.registry.registry import Registry
from pilotlight.runtime.golden import GoldenDocument
from pilotlight.runtime.session import open_session
from pilotlight.settings import DEFAULT_STORE
from pilotlight.storage.object_store import ObjectStore, open_store
from pilotlight.training_runs import run_store
from tests.functions.train.conftest import TINY, Finished, silence, tiny_recipe

FILES = {
    "calibration.png", "confusion.png", "curves.png", "evaluation.npz", "golden.json", "model-card.md",
    "model.fp32.onnx", "model.int8.onnx", "profile.json", "recipe.yaml", "report.json",
}  # fmt: skip
PNG = b"\x89PNG\r\n\x1a\n"


def served(finished: Finished, folder: Path) -> Path:
    """The served graph, on disk."""
    path = folder / finished.outcome.manifest.graph_file.path
    path.write_bytes(finished.file(path.name))
    return path


def evaluation(finished: Finished) -> Dataset:
    """The published test set, read as the demo reads it."""
    with np.load(io.BytesIO(finished.file("evaluation.npz")), allow_pickle=False) as arrays:
        return Dataset(arrays["image"], arrays["label"], finished.outcome.manifest.labels)


def test_version_is_published_and_champion(tiny: Finished) -> None:
    registry = Registry(tiny.store)
    assert str(tiny.outcome.reference) == "tiny:1"
    assert registry.load_manifest("tiny", 1) == tiny.outcome.manifest
    assert registry.resolve_reference(ModelReference.parse("tiny")) == 1


def test_manifest_tells_the_whole_story(tiny: Finished, splits: Splits) -> None:
    manifest, report = tiny.outcome.manifest, tiny.outcome.report
    assert {file.path for file in manifest.files} == FILES
    assert manifest.inputs == (TensorSpec("image", "FP32", ("batch", 1, 8, 8)),)
    assert manifest.request_cost is not None
    assert {point.row_bytes for point in manifest.request_cost.points} == {256}
    assert manifest.outputs == (TensorSpec("logits", "FP32", ("batch", 10)),)
    assert manifest.labels == tuple("0123456789")
    assert manifest.opset == 20
    assert manifest.licence == "CC-BY-4.0"
    assert manifest.serve == report.serve
    assert manifest.evaluation == report.evaluation
    assert manifest.parity is not None
    assert manifest.parity.max_abs <= 1e-4
    assert manifest.parity.batches == (1, 2, 7, 64)
    for precision, variant in manifest.variants.items():
        assert variant.metrics["accuracy"] == report.variants[precision].accuracy
    assert splits.test.sha256 == report.evaluation.sha256


def test_manifest_says_how_to_train_it_again(tiny: Finished, splits: Splits) -> None:
    training = tiny.outcome.manifest.training
    assert training is not None
    assert training.recipe == tiny_recipe().model_dump(mode="json")
    assert training.data_sha256 == splits.sha256
    assert training.seed == 0
    assert training.revision == get_code_revision()
    assert training.device
    assert training.wall_s > 0
    text = tiny.file("recipe.yaml").decode()
    assert schema.validate_recipe(schema.parse_yaml(text, "recipe.yaml"), "recipe.yaml") == tiny_recipe()


def test_published_test_set_gives_the_published_accuracy(tiny: Finished, splits: Splits, tmp_path: Path) -> None:
    test = evaluation(tiny)
    assert (test.inputs.dtype, test.inputs.shape[1:]) == (np.float32, (1, 8, 8))
    assert test.targets.dtype == np.int64
    assert test.sha256 == splits.test.sha256
    logits = open_session(str(served(tiny, tmp_path))).run({"image": test.inputs})["logits"]
    manifest = tiny.outcome.manifest
    accuracy = score_outputs(logits, test.targets, test.classes).accuracy
    assert accuracy == manifest.variants[manifest.serve].metrics["accuracy"]


def test_golden_and_report_are_of_the_published_files(tiny: Finished, tmp_path: Path) -> None:
    document = tiny.file("golden.json")
    golden.verify_recorded_answers(document, served(tiny, tmp_path))
    recorded = decode_document(document, GoldenDocument, "golden.json")
    assert recorded.variant == tiny.outcome.manifest.serve
    assert recorded.tolerance > 0
    assert 2 <= len(recorded.exchanges) <= 11
    report = decode_document(tiny.file("report.json"), QuantizationReport, "report.json")
    assert report == tiny.outcome.report
    assert report.variants["int8"].bytes == tiny.outcome.manifest.get_file("model.int8.onnx").bytes


def test_run_leaves_its_journal(tiny: Finished) -> None:
    folder = f"runs/{tiny.outcome.run_name}"
    names = {path.removeprefix(f"{folder}/") for path in tiny.store.list_paths(folder)}
    pictures = {"calibration.png", "confusion.png", "curves.png"}
    assert names == {"recipe.yaml", "data.json", "metrics.jsonl", "status.json", "published.json"} | pictures
    lines = tiny.store.get(f"{folder}/metrics.jsonl").data.decode().splitlines()
    assert [msgspec.json.decode(line, type=EpochMetrics) for line in lines] == list(tiny.outcome.history.epochs)
    assert tiny.store.get(f"{folder}/recipe.yaml").data == tiny.file("recipe.yaml")
    for picture in pictures:
        assert tiny.store.get(f"{folder}/{picture}").data == tiny.file(picture)
        assert tiny.file(picture).startswith(PNG)
    assert tiny.outcome.manifest.by == folder


def test_metrics_have_all_that_is_shown(tiny: Finished) -> None:
    first, last = run_store.load_run(tiny.store, tiny.outcome.run_name).epochs
    for line in (first, last):
        assert line.train_loss is not None
        assert line.learning_rate > 0
        assert line.examples_per_s > 0
        assert datetime.fromisoformat(line.at).tzinfo is not None
    assert first.remaining_s == pytest.approx(first.seconds, abs=1e-3)
    assert last.remaining_s == 0


def test_stages_are_timed_in_order(tiny: Finished) -> None:
    stages = ["data", "train", "evaluate", "export", "parity", "quantize", "report", "golden", "publish"]
    assert list(tiny.outcome.seconds) == stages


def assert_nothing_is_visible(registry: Registry) -> None:
    assert registry.list_models() == []
    assert list(registry.load_aliases("tiny").documents) == []


def test_diverged_run_publishes_nothing(empty: Registry) -> None:
    with pytest.raises(DivergedError):
        run_recipe(tiny_recipe("optimiser.learning_rate=1e30"), empty.store, silence())
    assert_nothing_is_visible(empty)
    (metrics,) = (path for path in empty.store.list_paths("runs") if path.endswith("metrics.jsonl"))
    assert json.loads(empty.store.get(metrics).data)["train_loss"] is None  # the run's own folder tells what happened


@pytest.fixture
def mistaken(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that writes another model's graph."""

    def export(network: nn.Module, images: object, options: object, path: Path) -> int:
        path.write_bytes(graph.read_bytes())
        return 20

    monkeypatch.setattr(protocol, "export_onnx", export)


@pytest.mark.usefixtures("mistaken")
def test_parity_failure_publishes_nothing(empty: Registry) -> None:
    with pytest.raises(ParityError, match=r"more than the tolerance of 0\.0001: nothing is published"):
        run_recipe(tiny_recipe("epochs=1"), empty.store, silence())
    assert_nothing_is_visible(empty)


@pytest.mark.usefixtures("mistaken")
def test_model_of_nan_is_not_published(empty: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(
        network: nn.Module,
        splits: Splits,
        recipe: Recipe,
        watch: Callable[[EpochMetrics], None],
        keeper: Checkpointer,
        world: ProcessGroup,
    ) -> TrainingHistory:
        history = train_model(network, splits, recipe, watch, keeper, world)
        with torch.no_grad():
            next(network.parameters()).fill_(torch.nan)
        return history

    monkeypatch.setattr(protocol, "train_model", poisoned)
    with pytest.raises(NotPublishableError, match="nan away"):
        run_recipe(tiny_recipe("epochs=1"), empty.store, silence())
    assert_nothing_is_visible(empty)


class Brittle(ObjectStore):
    """A store that breaks off in the middle of an upload."""

    def __init__(self) -> None:
        inner = open_store("memory://")
        super().__init__(inner.url, inner._store)

    def create(self, path: str, data: bytes) -> None:
        if path.endswith("report.json"):
            raise StoreError(f"The store failed at {path}: connection reset")
        super().create(path, data)


def test_broken_upload_is_invisible() -> None:
    registry = Registry(Brittle())
    with pytest.raises(StoreError):
        run_recipe(tiny_recipe("epochs=1"), registry.store, silence())
    assert_nothing_is_visible(registry)


def test_fp32_is_published_to_be_served_when_int8_is_ruined(
    empty: Registry, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ruin(fp32: Path, inputs: object, plan: object, path: Path) -> None:
        path.write_bytes(graph.read_bytes())  # an untrained model's

    monkeypatch.setattr(protocol, "QuantizationSearch", partial(QuantizationSearch, quantize=ruin))
    outcome = run_recipe(tiny_recipe("optimiser.learning_rate=0.01"), empty.store, silence())
    finished = Finished(outcome, empty.store)
    assert outcome.manifest.serve == "fp32"
    assert set(outcome.manifest.variants) == {"fp32", "int8"}
    report = decode_document(finished.file("report.json"), QuantizationReport, "report.json")
    assert report.serve == "fp32"
    assert report.points_lost > report.budget
    assert "fp32 is served" in report.verdict
    assert decode_document(finished.file("golden.json"), GoldenDocument, "golden.json").variant == "fp32"


def test_command_prints_the_reference_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digits", "--set", *TINY, "epochs=1", "--store", str(tmp_path / "store")]) == 0
    out, err = capsys.readouterr()
    assert out == "tiny:1\n"
    for word in ("train", "parity", "int8", "tiny:1"):
        assert word in err
    manifest = Registry(open_store(str(tmp_path / "store"))).load_manifest("tiny", 1)
    assert isinstance(manifest, Manifest)


def test_outcome_as_json(tiny: Finished) -> None:
    text = format_outcome_json(tiny.outcome, "memory://")
    assert "\n" not in text
    said = json.loads(text)
    assert said["reference"] == "tiny:1"
    assert said["store"] == "memory://"
    assert said["run"] == tiny.outcome.run_name
    assert said["metrics"]["fp32"]["accuracy"] == tiny.outcome.report.variants["fp32"].accuracy
    assert said["report"] == json.loads(tiny.file("report.json"))


def test_store_defaults_to_the_environments_then_to_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTLIGHT_STORE", "s3://bucket/prefix")
    assert build_train_parser().parse_args(["digits"]).store == "s3://bucket/prefix"
    assert build_train_parser().parse_args(["digits", "--store", "memory://"]).store == "memory://"
    monkeypatch.delenv("PILOTLIGHT_STORE")
    assert build_train_parser().parse_args(["digits"]).store == DEFAULT_STORE


def test_command_ends_with_one_when_nothing_is_published(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["digits", "--set", *TINY, "optimiser.learning_rate=1e30", "--store", "memory://"]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("Training diverged in epoch 1")


def test_interrupted_command_ends_with_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(protocol, "build_and_train", interrupted)
    assert main(["digits", "--store", "memory://"]) == 130
    assert capsys.readouterr().err.endswith("Interrupted.\n")


def test_report_is_shown_as_a_table(tiny: Finished) -> None:
    console = Console(file=io.StringIO(), record=True, width=120)
    console.print(build_report_table(tiny.outcome.report))
    text = console.export_text()
    for word in ("fp32", "int8", "accuracy", "median latency", "450 test examples"):
        assert word in text


def test_archive_holds_nothing_pickled(splits: Splits, tmp_path: Path) -> None:
    with np.load(publish.write_test_set(splits.test, tmp_path / "evaluation.npz"), allow_pickle=False) as arrays:
        assert sorted(arrays.files) == ["image", "label"]
        assert np.array_equal(arrays["image"], splits.test.inputs)
        assert np.array_equal(arrays["label"], splits.test.targets)


def test_revision_without_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe_git_commit(tmp_path) == ""
    monkeypatch.setenv("PILOTLIGHT_REVISION", "abc-dirty")
    assert get_code_revision() == "abc-dirty"
