"""What publishing assumes is read from the graph, and told; labels fit the scores; requests are recorded or not."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotlight.cli import publish
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.processing import ClassificationPostprocessing, ImagePreprocessing
from pilotlight.gate.checks import check_golden
from pilotlight.gate.probe_result import ProbeResult
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.core.cli.conftest import Run
from tests.graph_writer import FLOAT, INT64, UINT8, model, node, tensor, value

WEIGHTS = tensor("w", np.array([[1, 2], [3, 4], [5, 6]], np.float32))
MEAN = [node("Cast", ["x"], ["f"], to=FLOAT), node("GlobalAveragePool", ["f"], ["m"]), node("Flatten", ["m"], ["r"])]


def images(path: Path, *last: str, kind: int = FLOAT, shape: Sequence[int | str] = ("n", 3, "h", "w")) -> str:
    """A classifier of colours into two classes, which ends in the operators `last`."""
    names = ["s", *(f"t{number}" for number in range(len(last) - 1)), "y"] if last else ["y"]
    nodes = [*MEAN, node("MatMul", ["r", "w"], [names[0]])]
    nodes += [node(one, [names[place]], [names[place + 1]]) for place, one in enumerate(last)]
    content = model(nodes, [value("x", kind, shape)], [value("y", FLOAT, ["n", 2])], [WEIGHTS])
    (path / "model.onnx").write_bytes(content)
    return str(path / "model.onnx")


def published(run: Run, store: str, *words: str) -> tuple[Manifest, str]:
    code, out, err = run("publish", *words, "--name", "m")
    assert code == 0, err
    assert out.startswith("m:")
    assert len(out.splitlines()) == 1
    return Registry(open_store(store)).load_manifest("m", int(out.strip().removeprefix("m:"))), " ".join(err.split())


def labels(path: Path, *names: str) -> list[str]:
    (path / "labels.txt").write_text("\n".join(names))
    return ["--labels", str(path / "labels.txt")]


@pytest.mark.parametrize(
    ("last", "activation", "why"),
    [
        (("Softmax",), "none", "y: it comes from a Softmax node"),
        (("Softmax", "Identity"), "none", "y: it comes from a Softmax node"),
        (("Sigmoid",), "none", "y: it comes from a Sigmoid node"),
        (("LogSoftmax",), "exp", "y: it comes from a LogSoftmax node"),
        ((), "softmax", "y: nothing in the graph makes its scores probabilities"),
        (("Exp",), "softmax", "y: nothing in the graph makes its scores probabilities"),
    ],
)
def test_a_second_softmax_is_never_assumed(
    run: Run, store: str, tmp_path: Path, last: tuple[str, ...], activation: str, why: str
) -> None:
    words = [images(tmp_path, *last), "--task", "image", *labels(tmp_path, "dark", "light")]
    manifest, err = published(run, store, *words)
    assert manifest.postprocess == ClassificationPostprocessing(output="y", activation=activation)  # type: ignore[arg-type]  # a word of the table
    assert f"Assumed activation: {activation} ({why})." in err
    card = Registry(open_store(store)).store.get("models/m/versions/1/model-card.md").data.decode()
    assert f"- activation: {activation} ({why})" in card


def test_images_need_no_file_of_steps(run: Run, store: str, tmp_path: Path) -> None:
    words = [images(tmp_path, "Softmax"), "--task", "image"]
    manifest, err = published(run, store, *words)
    assert manifest.preprocess == ImagePreprocessing(input="x", resize=(224, 224))
    assert manifest.postprocess == ClassificationPostprocessing(output="y", activation="none")
    for line in (
        "layout: NCHW (its input x is FP32 [n, 3, h, w])",
        "size: 224 x 224 (its input x is FP32 [n, 3, h, w]: it takes any, and 224 is usual)",
        "scale: 1/255 (pixels of 0 to 1 are usual, and no file says otherwise)",
        "mean and deviation: none (no file tells any; ImageNet's are usual for pretrained models)",
        "batch: the first axis (x is [n, 3, h, w])",
    ):
        assert f"Assumed {line}." in err


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        (UINT8, ["n", 3, 16, 16], ImagePreprocessing(input="x", resize=(16, 16), scale=1.0)),
        (FLOAT, [1, 3, 16, 24], ImagePreprocessing(input="x", resize=(16, 24))),
        (FLOAT, ["n", "c", "h", "w"], ImagePreprocessing(input="x", resize=(224, 224))),
    ],
)
def test_the_form_of_images_is_the_signature(
    run: Run, store: str, tmp_path: Path, kind: int, shape: Sequence[int | str], expected: ImagePreprocessing
) -> None:
    manifest, _ = published(run, store, images(tmp_path, kind=kind, shape=shape), "--task", "image")
    assert manifest.preprocess == expected


def test_channels_last_are_seen(run: Run, store: str, tmp_path: Path) -> None:
    nodes = [node("Transpose", ["x"], ["c"], perm=[0, 3, 1, 2]), node("GlobalAveragePool", ["c"], ["y"])]
    content = model(nodes, [value("x", FLOAT, ["n", 32, 32, 3])], [value("y", FLOAT, ["n", 3, 1, 1])])
    (tmp_path / "model.onnx").write_bytes(content)
    manifest, _ = published(run, store, str(tmp_path / "model.onnx"), "--task", "image")
    assert manifest.preprocess == ImagePreprocessing(input="x", resize=(32, 32), layout="NHWC")


def test_a_setting_that_contradicts_the_graph_stays_and_is_told(run: Run, store: str, tmp_path: Path) -> None:
    steps: dict[str, Any] = {
        "prepare": {"kind": "image"},
        "finish": {"kind": "classification", "activation": "softmax"},
    }
    (tmp_path / "steps.json").write_text(json.dumps(steps))
    words = [images(tmp_path, "Softmax"), "--processing", str(tmp_path / "steps.json")]
    manifest, err = published(run, store, *words)
    assert manifest.postprocess == ClassificationPostprocessing(output="y")
    assert "--processing says so, but y: it comes from a Softmax node, for which it is 'none'" in err


def test_json_has_what_was_assumed(run: Run, tmp_path: Path) -> None:
    code, out, err = run("publish", images(tmp_path, "Softmax"), "--task", "image", "--name", "m", "--json")
    assert (code, err) == (0, "")
    read = json.loads(out)
    assert read["reference"] == "m:1"
    assert {one["setting"] for one in read["assumed"]} >= {"layout", "colour", "size", "scale", "activation", "batch"}


def test_labels_make_tensors_names(run: Run, store: str, tmp_path: Path) -> None:
    words = [str(fakes.MODELS / "double.onnx"), *labels(tmp_path, "cat", "dog", "bird")]
    manifest, err = published(run, store, *words)
    assert manifest.task == "tensor"
    assert manifest.postprocess == ClassificationPostprocessing(output="y")
    assert "Assumed finish: classification (there are labels, and y has a score for each)." in err
    manifest, _ = published(run, store, *words, "--task", "tensor")
    assert (manifest.postprocess, manifest.labels) == (None, ("cat", "dog", "bird"))


@pytest.mark.parametrize(("task", "count"), [("tensor", 5), (None, 5), ("image", 1), ("image", 5)])
def test_labels_are_counted(run: Run, store: str, tmp_path: Path, task: str | None, count: int) -> None:
    words = labels(tmp_path, *(f"class {number}" for number in range(count)))
    code, out, err = run("publish", images(tmp_path), "--name", "m", *(["--task", task] if task else []), *words)
    assert (code, out) == (2, "")
    assert f"labels.txt has {count} labels, but the graph's 'y' has 2 classes" in " ".join(err.split())
    assert not Path(store).exists() or not [path for path in Path(store).rglob("*") if path.is_file()]


def test_two_labels_of_one_score_are_a_sigmoid(run: Run, store: str, tmp_path: Path) -> None:
    weights = tensor("w", np.ones((3, 1), np.float32))
    content = model(
        [node("MatMul", ["x", "w"], ["y"])], [value("x", FLOAT, ["n", 3])], [value("y", FLOAT, ["n", 1])], [weights]
    )
    (tmp_path / "m.onnx").write_bytes(content)
    manifest, _ = published(run, store, str(tmp_path / "m.onnx"), *labels(tmp_path, "no", "yes"))
    assert manifest.postprocess == ClassificationPostprocessing(output="y", activation="sigmoid")


def test_dimensions_that_no_signature_tells_are_seen(run: Run, store: str, tmp_path: Path) -> None:
    nodes = [node("Reshape", ["x", "shape"], ["y"])]
    shape = tensor("shape", np.array([-1, 3, 1], np.int64))
    outputs = [value("y", FLOAT, None)]
    path = tmp_path / "m.onnx"
    path.write_bytes(model(nodes, [value("x", FLOAT, ["n", 3]), value("k", INT64, ["n"])], outputs, [shape]))
    manifest, _ = published(run, store, str(path))
    assert len(manifest.outputs[0].shape) == 3
    assert manifest.golden == "golden.json"


def chance(path: Path, *, also_fixed: bool) -> str:
    nodes, outputs = [node("RandomNormalLike", ["x"], ["r"])], [value("r", FLOAT, ["n", 3])]
    if also_fixed:
        nodes, outputs = [*nodes, node("Relu", ["x"], ["y"])], [*outputs, value("y", FLOAT, ["n", 3])]
    (path / "m.onnx").write_bytes(model(nodes, [value("x", FLOAT, ["n", 3])], outputs))
    return str(path / "m.onnx")


def test_what_is_not_checked_is_said(run: Run, store: str, tmp_path: Path) -> None:
    manifest, err = published(run, store, chance(tmp_path, also_fixed=False))
    assert manifest.golden is None
    assert "Not checked. No golden requests are recorded: 'r' is not the same twice: it is drawn by chance." in err
    card = open_store(store).get("models/m/versions/1/model-card.md").data.decode()
    assert "Not checked. No golden requests are recorded: 'r' is not the same twice" in card
    check = check_golden(manifest, ProbeResult())
    assert (check.passed, check.checked, check.status) == (True, False, "not checked")
    _, out, _ = run("models", "m", "--json")
    assert json.loads(out)["versions"][0]["golden"] == "not checked"
    assert "not checked" in run("models", "m")[1]
    _, out, _ = run("promote", "m", "--check", "--json")
    (golden,) = [one for one in json.loads(out)["verdict"]["checks"] if one["name"] == "golden"]
    assert golden["checked"] is False
    assert "not checked" in " ".join(run("promote", "m", "--check")[1].split())


def test_outputs_by_chance_leave_the_others_checked(run: Run, store: str, tmp_path: Path) -> None:
    manifest, err = published(run, store, chance(tmp_path, also_fixed=True))
    assert manifest.golden == "golden.json"
    assert "Not checked by golden requests: 'r' is not the same twice: it is drawn by chance." in err
    document = json.loads(open_store(store).get("models/m/versions/1/golden.json").data)
    assert [one["name"] for one in document["exchanges"][0]["response"]["outputs"]] == ["y"]


@pytest.mark.parametrize("form", ["npz", "json"])
def test_a_sample_is_recorded(run: Run, store: str, tmp_path: Path, form: str) -> None:
    file = tmp_path / f"request.{form}"
    if form == "npz":
        np.savez(file, x=np.array([[1, 2, 3]]))  # of int64, which FP32 holds
    else:
        tensors = [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]
        file.write_text(json.dumps({"inputs": tensors}))
    published(run, store, str(fakes.MODELS / "double.onnx"), "--sample", str(file))
    document = json.loads(open_store(store).get("models/m/versions/1/golden.json").data)
    (exchange,) = document["exchanges"]
    assert exchange["request"]["inputs"][0]["data"] == [1, 2, 3]
    assert exchange["response"]["outputs"][0]["data"] == [2, 4, 6]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"z": np.zeros((1, 3))}, "the graph has the inputs ['x']; 'x' is missing, 'z' is not one of them"),
        ({"x": np.zeros((1, 4))}, "has 'x' of shape [1, 4]; the graph takes FP32 [batch, 3]"),
        ({"x": np.array([["a", "b", "c"]])}, "has 'x' of <U1; the graph takes FP32 [batch, 3]"),
        ({"x": np.array([[{}]])}, "does not read as arrays"),
    ],
)
def test_a_sample_that_does_not_fit_is_one_sentence(
    run: Run, tmp_path: Path, arrays: dict[str, Any], said: str
) -> None:
    np.savez(tmp_path / "s.npz", allow_pickle=True, **arrays)
    sample = str(tmp_path / "s.npz")
    code, out, err = run("publish", str(fakes.MODELS / "double.onnx"), "--name", "m", "--sample", sample)
    assert (code, out, said in " ".join(err.split())) == (2, "", True), err
    (tmp_path / "s.json").write_text("{}")
    code, _, err = run(
        "publish", str(fakes.MODELS / "double.onnx"), "--name", "m", "--sample", str(tmp_path / "s.json")
    )
    assert (code, "is neither an npz file nor a V2 request" in err) == (2, True), err


def test_inputs_with_values_of_their_own_are_told(run: Run, store: str, tmp_path: Path) -> None:
    ends = [value("x", FLOAT, ["n", 3]), value("least", FLOAT, [1])]
    nodes, least = [node("Max", ["x", "least"], ["y"])], tensor("least", np.zeros(1, np.float32))
    (tmp_path / "model.onnx").write_bytes(model(nodes, ends, [value("y", FLOAT, ["n", 3])], [least]))
    manifest, told = published(run, store, str(tmp_path / "model.onnx"))
    assert [spec.name for spec in manifest.inputs] == ["x"]
    assert "Assumed no inputs: least (the graph has values of its own for them)." in told


def test_a_row_that_no_request_holds_is_told(
    run: Run, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = images(tmp_path, shape=("n", 3, 8, 8))
    _, told = published(run, store, file)
    assert "The smallest request" not in told
    monkeypatch.setattr(publish, "BODY_BYTES", 767)
    _, told = published(run, store, file)
    assert "The smallest request has 768 bytes, more than the 767 that a function takes: send its tensors by" in told
    _, told = published(run, store, file, "--task", "image", *labels(tmp_path, "warm", "cold"))
    assert "The smallest request" not in told
