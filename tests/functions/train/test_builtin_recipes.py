"""The other recipes of record, in full: each trains, is quantized, published, and reaches its score on the test set."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest

from functions.train.data import Array
from functions.train.evaluation.metrics import score_outputs
from functions.train.export import golden
from functions.train.export.quantize import run_graph
from functions.train.pipeline import RunOutcome, run_recipe
from pilotlight.contracts.processing import TablePreprocessing
from pilotlight.recipes.schema import BUILTIN_FOLDER, load_recipe
from pilotlight.registry.registry import version_path
from pilotlight.runtime.session import Session, open_session
from pilotlight.storage.object_store import ObjectStore, open_store
from tests.functions.train.conftest import silence

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Record:
    """A recipe of record and what it promises."""

    recipe: str
    metric: str
    least: float
    operator: str  # in its fp32 graph
    overrides: tuple[str, ...] = ()


RECORDS = {
    "gru": Record("digits-rnn", "accuracy", 0.96, "GRU"),
    "lstm": Record("digits-rnn", "accuracy", 0.96, "LSTM", ("model.cell=lstm",)),
    "transformer": Record("digits-transformer", "accuracy", 0.97, "Softmax"),
    "breast-cancer": Record("breast-cancer", "balanced_accuracy", 0.95, "Gemm"),
    "wine": Record("wine", "accuracy", 0.95, "Gemm"),
    "iris": Record("iris", "accuracy", 0.86, "Gemm"),
    "diabetes": Record("diabetes", "r2", 0.42, "Gemm"),
}


@dataclass(frozen=True)
class Kept:
    """A finished run of a record, with its version's files on disk."""

    record: Record
    outcome: RunOutcome
    folder: Path

    @property
    def served(self) -> Session:
        """The served graph, open."""
        return open_session(str(self.folder / self.outcome.manifest.graph_file.path))

    def evaluation(self) -> Mapping[str, Array]:
        """The published test set."""
        with np.load(io.BytesIO((self.folder / "evaluation.npz").read_bytes()), allow_pickle=False) as arrays:
            return dict(arrays)


@pytest.fixture(scope="module", params=RECORDS)
def kept(request: pytest.FixtureRequest) -> Iterator[Kept]:
    record, store = RECORDS[request.param], open_store("memory://")
    outcome = run_recipe(load_recipe(record.recipe, record.overrides), store, silence(), recipe_folder=BUILTIN_FOLDER)
    with TemporaryDirectory() as folder:
        save(store, outcome, Path(folder))
        yield Kept(record, outcome, Path(folder))


def save(store: ObjectStore, outcome: RunOutcome, folder: Path) -> None:
    manifest = outcome.manifest
    for file in manifest.files:
        (folder / file.path).write_bytes(store.get(version_path(manifest.name, manifest.version, file.path)).data)


def test_record_reaches_its_score(kept: Kept) -> None:
    manifest, record = kept.outcome.manifest, kept.record
    assert manifest.metric == record.metric
    for variant in manifest.variants.values():
        assert variant.metrics[record.metric] >= record.least
    assert kept.outcome.report.points_lost <= kept.outcome.report.budget
    if kept.outcome.folds:  # small data sets: one test set says little
        assert kept.outcome.folds.mean >= record.least


def test_served_graph_repeats_the_report_to_the_digit(kept: Kept) -> None:
    manifest, arrays = kept.outcome.manifest, kept.evaluation()
    given = manifest.inputs[0].name
    assert sorted(arrays) == (["image", "label"] if given == "image" else ["features", "target"])
    answers = run_graph(kept.served, arrays[given])
    judged = score_outputs(answers, arrays["label" if given == "image" else "target"], manifest.labels)
    assert judged.metrics.items() <= manifest.variants[manifest.serve].metrics.items()
    golden.verify_recorded_answers((kept.folder / "golden.json").read_bytes(), kept.folder / manifest.graph_file.path)


def test_graph_is_the_models_over_the_whole_grid(kept: Kept) -> None:
    manifest = kept.outcome.manifest
    assert manifest.parity is not None
    assert manifest.parity.max_abs <= 1e-4
    assert manifest.parity.batches == (1, 2, 7, 64)
    graph = onnx.load(kept.folder / manifest.variants["fp32"].graph).graph
    assert kept.record.operator in [node.op_type for node in graph.node]


def test_manifest_tells_the_constants_of_the_graph(kept: Kept) -> None:
    manifest = kept.outcome.manifest
    scaling = manifest.input_standardization
    assert scaling is not None
    examples = next(iter(kept.evaluation().values()))
    assert len(scaling.names) == len(scaling.mean) == len(scaling.deviation) == examples.shape[1]
    graph = onnx.load(kept.folder / manifest.variants["fp32"].graph).graph
    held = {onnx.numpy_helper.to_array(tensor).tobytes() for tensor in graph.initializer}
    assert np.array(scaling.mean, np.float32).tobytes() in held
    assert np.array(scaling.deviation, np.float32).tobytes() in held
    assert (manifest.output_standardization is not None) == (not manifest.labels)


def test_a_table_is_published_with_its_columns(kept: Kept) -> None:
    manifest = kept.outcome.manifest
    assert manifest.input_standardization is not None
    if "image" in kept.evaluation():
        assert (manifest.task, manifest.preprocess, manifest.postprocess) == ("tensor", None, None)
        return
    assert isinstance(manifest.preprocess, TablePreprocessing)
    assert tuple(column.name for column in manifest.preprocess.columns) == manifest.input_standardization.names
    assert (manifest.postprocess is not None) == bool(manifest.labels)


def test_ladder_is_reported(kept: Kept) -> None:
    report = kept.outcome.report
    assert report.rungs
    assert report.rungs[-1].holds == (report.serve == "int8")
    assert (report.cleaning is not None) == (kept.outcome.manifest.inputs[0].name == "features")
