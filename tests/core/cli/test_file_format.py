"""What is no model is told from its first bytes, before a process is started or anything heavy is imported."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.cli import file_format, graph_source
from pilotlight.errors import InvalidInputError
from pilotlight.native import child_process
from tests import fakes
from tests.core.cli.conftest import Run

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 133466304\n"
PICKLE = b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x08sklearn"
CASES = {
    "digit.json": (b'{"inputs": [[1, 2]]}', "is not an XGBoost model, as save_model writes .json or .ubj; no other"),
    "model.onnx": (LFS, "is not an ONNX file: it is a pointer of Git LFS to a file of 133,466,304 bytes; run git lfs"),
    "page.onnx": (b"<!DOCTYPE html><html>", "it is an HTML page, as servers send instead of a file that needs a login"),
    "empty.onnx": (b"", "it is empty, a file of 0 bytes; export or download it again"),
    "cut.onnx": (fakes.graph("double")[:60], "is not a whole ONNX file: it has 60 bytes of"),
    "zeros.onnx": (bytes(200), "it is zeros, 200 bytes; download it again"),
    "hello.onnx": (b"hello, world", "it is text; publish an ONNX file"),
    "m.joblib": (b"\x78\x9c123", "may hold a pickle, which runs whatever code its author put into it"),
    "m.pkl": (PICKLE, "may hold a pickle"),
    "m.onnx": (PICKLE, "may hold a pickle"),
    "noname": (PICKLE, "may hold a pickle"),
    "old.pt": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "may hold a pickle"),
    "m.h5": (b"\x89HDF\r\n\x1a\n\x00", "is a model of Keras, which is not read here; where Keras is"),
    "unnamed": (b"\x89HDF\r\n\x1a\n\x00", "unnamed').export('model.onnx', format='onnx')\", and publish model.onnx."),
    "m.H5": (b"\x08", "m.H5 is a model of Keras"),
    "m.keras": (b"\x08", "m.keras is a model of Keras"),
    "m.tflite": (b"\x1c\x00\x00\x00TFL3\x14\x00", "is a model of TensorFlow Lite, which is not read here;"),
    "a b.tflite": (b"\x08", "a b.tflite' --output model.onnx, and publish model.onnx."),
    "saved_model.pb": (b"\x08", "is part of a SavedModel of TensorFlow, which is not read here; where TensorFlow is"),
    "frozen.pb": (b"\x08", "frozen.pb --inputs NAME:0 --outputs NAME:0 --output model.onnx, and publish model.onnx."),
    "m.gguf": (b"GGUX\x03\x00\x00\x00", "m.gguf is called a GGUF file, and does not begin as one; download it again."),
    "m.mlmodel": (b"\x08\x05\x12", "it is a Core ML model"),
    "m.safetensors": (b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "it is a file of weights without a graph; publish"),
    "m.onnx.gz": (b"\x1f\x8b\x08", "it is compressed with gzip; unpack it"),
    "m.py": (b"def f():\n    pass\n", "it is Python code; say which object of it: file.py:NAME"),
    "m.npz": (b"PK\x03\x04" + b"x.npy", "it is arrays of numpy; publish a model; npz files are for --evaluation"),
    "m.xml": (b"<?xml version='1.0'?><net/>", "it is XML text"),
    "photo.png": (b"\x89PNG\r\n\x1a\n", "it is a PNG image"),
    "m.ort": (b"\x18\x00\x00\x00ORTM", "it is a model in onnxruntime's own format"),
}  # fmt: skip


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("still")
def test_what_a_file_is_is_told_in_one_sentence(run: Run, tmp_path: Path, name: str) -> None:
    content, said = CASES[name]
    (tmp_path / name).write_bytes(content)
    code, out, err = run("publish", str(tmp_path / name), "--name", "m")
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith(str(tmp_path / name))
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (["archive/data.pkl", "archive/version"], "may hold a pickle"),
        (["metadata.json", "config.json", "model.weights.h5"], "is a model of Keras, which is not read here;"),
        (["model.onnx"], "it is a zip archive; unpack it"),
    ],
)
@pytest.mark.usefixtures("still")
def test_an_archive_is_known_by_its_entries(run: Run, tmp_path: Path, entries: list[str], said: str) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        for entry in entries:
            archive.writestr(entry, "x")
    code, _, err = run("publish", str(tmp_path / "model.zip"), "--name", "m")
    assert (code, said in err) == (2, True), err


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["saved_model.pb", "keras_metadata.pb"],
            "is a SavedModel of TensorFlow, which is not read here;",
        ),
        (["saved_model.pb"], "python -m tf2onnx.convert --saved-model"),
        (["model.json", "group1-shard1of1.bin"], "m is a model of TensorFlow.js, which is not read here;"),
        (["Manifest.json"], "it is a Core ML package"),
        ([], "holds neither an ONNX graph nor a config.json; bring an ONNX file"),
        (["README.md", "weights.bin"], "holds neither an ONNX graph nor a config.json"),
    ],
)
@pytest.mark.usefixtures("still")
def test_what_a_folder_is_is_told_as_well(run: Run, tmp_path: Path, names: list[str], said: str) -> None:
    (tmp_path / "m").mkdir()
    for name in names:
        (tmp_path / "m" / name).write_bytes(b"x")
    code, _, err = run("publish", str(tmp_path / "m"), "--name", "m")
    assert (code, said in err) == (2, True), err


@pytest.mark.parametrize("name", ["model.onnx.1", "model.bin", "graph.pb", "saved_model.pb", "model.h5", "model"])
def test_a_graph_is_one_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(fakes.graph("double"))
    source = graph_source.locate_graph(tmp_path / name)
    assert source is not None
    assert source.graph == tmp_path / name


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.json", json.dumps({"learner": {"gradient_booster": {}}}).encode()),
        ("model.txt", b"tree\nversion=v4\nnum_class=1\n"),
        ("model.cbm", b"CBM1\x00\x01\x02"),
        ("model.ubj", b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{L"),
        ("model.pt2", b"PK\x03\x04..archive_format"),
    ],
)
def test_what_is_converted_passes(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert graph_source.locate_graph(tmp_path / name) is None


def test_a_graph_beside_another_tool_s_model_is_published(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    (tmp_path / "model.onnx").write_bytes(fakes.graph("double"))
    source = graph_source.locate_graph(tmp_path)
    assert source is not None
    assert source.graph == tmp_path / "model.onnx"


@given(content=st.binary(max_size=300), name=st.sampled_from(["m", "m.onnx", "m.json", "m.dat"]))
def test_any_bytes_pass_or_get_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    try:
        file_format.check_file_format(path)
        file_format.check_file_name(path)
    except InvalidInputError as exc:
        assert len(str(exc).splitlines()) == 1  # noqa: PT017 - either is right


def test_a_file_that_is_no_model_imports_no_training_library(tmp_path: Path) -> None:
    (tmp_path / "digit.json").write_text("{}")
    code = (
        "import sys; sys.argv = ['pilotlight', 'publish', sys.argv[1], '--name', 'm']\n"
        "from pilotlight.cli import app\n"
        "try: app()\n"
        "except SystemExit as end: print(end.code, sorted({'torch', 'onnx', 'sklearn'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "digit.json")],
        capture_output=True,
        text=True,
        check=True,
        env=child_process.build_environment() | {"HOME": os.environ.get("HOME", "")},
    )
    assert done.stdout == "2 []\n"
