"""Models where Hugging Face's cache keeps them: every file of a snapshot is a link into the model's blobs."""

import json
from pathlib import Path

import numpy as np
import pytest

from pilotlight.contracts.manifest import Manifest
from pilotlight.registry.registry import Registry
from pilotlight.runtime import containment
from pilotlight.runtime.session import open_session
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.core.cli.conftest import Run
from tests.core.cli.test_graph_source import apart

WEIGHTS = np.array([1, 2, 3], np.float32).tobytes()


def cache(path: Path, files: dict[str, bytes], *, commit: str = "a1b2c3", model: str = "models--org--name") -> Path:
    """A model in the cache; gives the folder of its snapshot."""
    top = path / model
    snapshot = top / "snapshots" / commit
    (top / "blobs").mkdir(parents=True, exist_ok=True)
    (top / "refs").mkdir(exist_ok=True)
    for number, (name, content) in enumerate(files.items()):
        blob = top / "blobs" / f"{commit}{number:058x}"
        blob.write_bytes(content)
        place = snapshot / name
        place.parent.mkdir(parents=True, exist_ok=True)
        depth = len(Path(name).parts) + 1
        place.symlink_to(Path(*[".."] * depth) / "blobs" / blob.name)
    return snapshot


def published(run: Run, store: str, *words: object) -> Manifest:
    code, out, err = run("publish", *map(str, words), "--name", "m")
    assert code == 0, err
    return Registry(open_store(store)).load_manifest("m", int(out.strip().removeprefix("m:")))


@pytest.mark.parametrize("place", ["model.onnx", "onnx/model.onnx"])
def test_links_into_the_blobs_are_published(run: Run, store: str, tmp_path: Path, place: str) -> None:
    beside = str(Path(place).with_name("model.onnx_data"))
    snapshot = cache(tmp_path, {place: apart("model.onnx_data"), beside: WEIGHTS})
    for path in (snapshot, snapshot / place):
        manifest = published(run, store, path)
        assert manifest.golden == "golden.json"
    graph = open_store(store).get(f"models/m/versions/{manifest.version}/{manifest.graph_file.path}").data
    (tmp_path / "again.onnx").write_bytes(graph)
    answers = open_session(str(tmp_path / "again.onnx")).run({"x": np.zeros((1, 3), np.float32)})
    assert answers["y"].tolist() == [[1, 2, 3]]


def test_the_top_folder_is_the_snapshot_of_main(run: Run, store: str, tmp_path: Path) -> None:
    cache(tmp_path, {"model.onnx": fakes.graph("square")}, commit="old")
    snapshot = cache(tmp_path, {"model.onnx": fakes.graph("double")}, commit="new")
    code, _, err = run("publish", str(tmp_path / "models--org--name"), "--name", "m")
    assert (code, "has the snapshots new, old, and refs/main names none of them" in " ".join(err.split())) == (2, True)
    (snapshot.parents[1] / "refs" / "main").write_text("new")
    manifest = published(run, store, tmp_path / "models--org--name")
    assert open_store(store).get(f"models/m/versions/1/{manifest.graph_file.path}").data == fakes.graph("double")


def test_labels_and_steps_are_read_from_linked_files(run: Run, store: str, tmp_path: Path) -> None:
    config = json.dumps({"id2label": {"0": "red", "1": "green", "2": "blue"}}).encode()
    steps = json.dumps({"size": {"height": 8, "width": 8}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}).encode()
    files = {"onnx/model.onnx": fakes.graph("colours"), "config.json": config, "preprocessor_config.json": steps}
    manifest = published(run, store, cache(tmp_path, files), "--task", "image")
    assert manifest.labels == ("red", "green", "blue")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../outside.bin", "../../../models--org--other/blobs/x"])
def test_a_link_that_leaves_the_cache_is_refused(run: Run, store: str, tmp_path: Path, target: str) -> None:
    snapshot = cache(tmp_path, {"model.onnx": apart("model.onnx_data")})
    (tmp_path / "outside.bin").write_bytes(WEIGHTS)
    cache(tmp_path, {"x": WEIGHTS}, model="models--org--other")
    (snapshot / "model.onnx_data").symlink_to(target)
    code, _, err = run("publish", str(snapshot), "--name", "m")
    assert (code, "keeps weights at 'model.onnx_data', outside its own folder" in " ".join(err.split())) == (2, True)
    assert not Path(store).exists() or not [path for path in Path(store).rglob("*") if path.is_file()]


def test_a_blob_that_leaves_the_cache_is_refused(run: Run, tmp_path: Path) -> None:
    snapshot = cache(tmp_path, {"model.onnx": apart("model.onnx_data"), "model.onnx_data": WEIGHTS})
    (tmp_path / "outside.bin").write_bytes(WEIGHTS)
    blob = (snapshot / "model.onnx_data").resolve()
    blob.unlink()
    blob.symlink_to(tmp_path / "outside.bin")
    code, _, err = run("publish", str(snapshot), "--name", "m")
    assert (code, "outside its own folder" in " ".join(err.split())) == (2, True)


def test_a_graph_that_leaves_the_cache_is_refused(run: Run, tmp_path: Path) -> None:
    snapshot = cache(tmp_path, {"config.json": b"{}"})
    (tmp_path / "outside.onnx").write_bytes(fakes.graph("double"))
    (snapshot / "model.onnx").symlink_to(tmp_path / "outside.onnx")
    code, _, err = run("publish", str(snapshot), "--name", "m")
    assert (code, "is a link out of the cache of Hugging Face" in " ".join(err.split())) == (2, True)


@pytest.mark.parametrize(
    ("location", "contained"),
    [
        ("w.bin", True), ("sub/w.bin", True), ("./w.bin", True), ("sub/../w.bin", True), ("absent.bin", True),
        ("../w.bin", False), ("sub/../../w.bin", False), ("/etc/passwd", False), ("C:\\w.bin", False),
        ("\\\\host\\w.bin", False), ("link.bin", False), ("up/w.bin", False), ("w\0.bin", False),
    ],
)  # fmt: skip
def test_what_lies_with_a_model(tmp_path: Path, location: str, contained: bool) -> None:
    folder = tmp_path / "m"
    (folder / "sub").mkdir(parents=True)
    (folder / "link.bin").symlink_to("/etc/passwd")
    (folder / "up").symlink_to("..")
    assert containment.is_contained(folder, location) is contained
