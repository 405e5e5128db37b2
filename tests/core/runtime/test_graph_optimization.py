"""Graphs with their weights in files apart: how they are made, laid and opened."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
from msgspec import structs

from pilotlight.contracts.manifest import Manifest, Variant
from pilotlight.errors import DoesNotFitError, ModelRefusedError
from pilotlight.registry.registry import Registry
from pilotlight.runtime import graph_optimization, model_files
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.deferred_prepacking import RUNS_BEFORE_PREPACKING
from pilotlight.runtime.model_files import RUNTIME, create_private_folder, open_model_files
from pilotlight.runtime.session import ONNXRUNTIME_VERSION, open_session, save_graph
from pilotlight.storage import download
from tests import fakes

DIGITS = fakes.MODELS / "digits" / "model.int8.onnx"


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_optimization, "MIN_PREPARED_BYTES", 1000)


def published(registry: Registry, graph: Path, folder: Path) -> Manifest:
    session = open_session(str(graph))
    variant, extra = graph_optimization.build_variant(graph, "model.onnx", folder)
    draft = fakes.draft("digits", session.inputs, session.outputs)
    return registry.publish_version(structs.replace(draft, variants={"fp32": variant}), extra)


def logits(path: str | Path, *, quick: bool = False, runs: int = 1) -> Array:
    session, (images, _) = open_session(str(path), quick=quick), fakes.digits()
    for _ in range(runs):
        found = session.run({"image": images[:8]})["logits"]
    return found


def test_the_pinned_onnxruntime_is_the_one_that_runs() -> None:
    assert model_files.PINNED_ONNXRUNTIME == ONNXRUNTIME_VERSION


def test_a_small_graph_is_published_as_it_is(tmp_path: Path) -> None:
    assert graph_optimization.build_variant(DIGITS, "model.onnx", tmp_path) == (
        Variant("model.onnx"),
        {"model.onnx": DIGITS},
    )


def test_a_small_graph_is_not_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "InferenceSession", None)
    graph_optimization.build_variant(DIGITS, "model.onnx", tmp_path)


@pytest.mark.usefixtures("small_is_large")
def test_a_graph_without_a_large_weight_is_prepared_in_one_file(tmp_path: Path) -> None:
    """A forest keeps its numbers in the attributes of a node, however many they are."""
    onnx = pytest.importorskip("onnx")
    offset, scale = np.zeros(4, np.float32), np.full(4, 2, np.float32)
    node = onnx.helper.make_node(
        "Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=offset, scale=scale, name="n" * 1000
    )
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "scaler", ends[:1], ends[1:])
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "given.onnx")
    found, made = graph_optimization.build_variant(tmp_path / "given.onnx", "model.onnx", tmp_path)
    assert found.prepared is not None
    assert found.prepared.weights == ()
    assert all(path.is_file() for path in made.values())
    session = open_session(str(made[found.prepared.graph]), quick=True)
    np.testing.assert_array_equal(session.run({"x": np.ones((1, 4), np.float32)})["y"], [[2, 2, 2, 2]])


@pytest.mark.usefixtures("small_is_large")
def test_a_prepared_graph_answers_as_the_given_one(registry: Registry, tmp_path: Path) -> None:
    manifest = published(registry, DIGITS, tmp_path)
    graph, weights = manifest.get_serving_files(RUNTIME)
    assert weights.bytes > graph.bytes > 0
    with open_model_files(registry.store, manifest) as path:
        assert Path(path).name == graph.path
        np.testing.assert_allclose(logits(path), logits(DIGITS), atol=0.02)


@pytest.mark.usefixtures("small_is_large")
def test_weights_are_packed_where_that_wins_enough(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_optimization, "PART_BYTES", 5000)
    monkeypatch.setattr(download, "PART_BYTES", 5000)
    monkeypatch.setattr(download, "FAST_BYTES_PER_S", float("inf"))
    manifest = published(registry, DIGITS, tmp_path)
    _, weights = manifest.get_serving_files(RUNTIME)
    packed = manifest.find_compressed_file(weights)
    assert packed is not None
    assert packed.path == "model.prepared.onnx.data.zst"
    assert (
        sum(packed.frames)
        == manifest.get_file(packed.path).bytes
        < graph_optimization.MAX_COMPRESSED_SHARE * weights.bytes
    )
    path = f"models/digits/versions/1/{weights.path}"
    plain = registry.store.get(path).data
    registry.store.put(path, plain[:5000] + bytes(len(plain) - 5000))  # all but the first part comes from the frames
    with open_model_files(registry.store, manifest) as laid:
        np.testing.assert_allclose(logits(laid), logits(DIGITS), atol=0.02)


@pytest.mark.usefixtures("small_is_large")
def test_weights_that_do_not_shrink_lie_there_once(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_optimization, "PART_BYTES", 5000)
    monkeypatch.setattr(graph_optimization, "MAX_COMPRESSED_SHARE", 0.1)
    manifest = published(registry, DIGITS, tmp_path)
    assert manifest.find_compressed_file(manifest.get_serving_files(RUNTIME)[1]) is None
    assert not [file.path for file in manifest.files if file.path.endswith(".zst")]


@pytest.mark.usefixtures("small_is_large")
def test_another_runtime_opens_the_graph_as_it_was_given(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = published(registry, DIGITS, tmp_path)
    monkeypatch.setattr(model_files, "RUNTIME", "onnxruntime 9.9.9 riscv")
    with open_model_files(registry.store, manifest) as path:
        assert Path(path).read_bytes() == DIGITS.read_bytes()


def test_a_graph_with_weights_beside_it_keeps_them_apart(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    save_graph(DIGITS, tmp_path / "given" / "model.onnx")
    (tmp_path / "new").mkdir()
    manifest = published(registry, tmp_path / "given" / "model.onnx", tmp_path / "new")
    assert manifest.variants["fp32"].weights == ("model.onnx.data",)
    assert manifest.served_bytes == manifest.graph_file.bytes + manifest.get_file("model.onnx.data").bytes
    with open_model_files(registry.store, manifest) as path:
        np.testing.assert_allclose(logits(path), logits(DIGITS), atol=0.02)


@pytest.mark.usefixtures("small_is_large")
def test_rotten_weights_are_refused_before_they_are_opened(registry: Registry, tmp_path: Path) -> None:
    manifest = published(registry, DIGITS, tmp_path)
    weights = manifest.get_serving_files(RUNTIME)[1]
    registry.store.put(f"models/digits/versions/1/{weights.path}", bytes(weights.bytes))
    with (
        pytest.raises(ModelRefusedError, match=r"model\.prepared\.onnx\.data holds"),
        open_model_files(registry.store, manifest),
    ):
        pytest.fail("it was laid")


def test_weights_that_the_disk_cannot_hold_are_not_fetched(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_graph(DIGITS, tmp_path / "model.onnx")
    (tmp_path / "new").mkdir()
    manifest = published(registry, tmp_path / "model.onnx", tmp_path / "new")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000))
    with (
        pytest.raises(DoesNotFitError, match=r"and 1,000 are free; raise EphemeralStorage"),
        open_model_files(registry.store, manifest),
    ):
        pytest.fail("it was laid")


def test_a_graph_that_names_weights_outside_of_its_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "version").mkdir()
    weights = save_graph(DIGITS, tmp_path / "version" / "model.onnx")
    weights.rename(tmp_path / "outside.data")
    graph = tmp_path / "version" / "model.onnx"
    graph.write_bytes(graph.read_bytes().replace(b"model.onnx.data", b"../outside.data"))
    with pytest.raises(ModelRefusedError, match="cannot open the graph"):
        open_session(str(graph))


def test_both_speeds_give_the_same_answer_after_the_folder_is_gone(tmp_path: Path) -> None:
    with create_private_folder(tmp_path) as folder:
        save_graph(DIGITS, folder / "model.onnx")
        session = open_session(str(folder / "model.onnx"), quick=True)
    images, _ = fakes.digits()
    answers = [session.run({"image": images[:8]})["logits"] for _ in range(3 * RUNS_BEFORE_PREPACKING)]
    session.prepack_now()
    assert list(tmp_path.iterdir()) == []
    for answer in (*answers, session.run({"image": images[:8]})["logits"]):
        np.testing.assert_allclose(answer, logits(DIGITS), atol=0.02)


def test_folders_that_a_killed_process_left_are_removed_and_others_kept(tmp_path: Path) -> None:
    left, young = tmp_path / f"{model_files.FOLDER_PREFIX}left", tmp_path / f"{model_files.FOLDER_PREFIX}young"
    left.mkdir()
    (left / "weights").write_bytes(b"x")
    os.utime(left, (0, 0))
    young.mkdir()
    with create_private_folder(tmp_path) as held:
        os.utime(held, (0, 0))
        with create_private_folder(tmp_path) as second:
            assert sorted(tmp_path.iterdir()) == sorted([held, second, young])
    assert list(tmp_path.iterdir()) == [young]
