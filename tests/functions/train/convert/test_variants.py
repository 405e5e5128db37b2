"""Graphs made smaller with and without data, and examples that do not fit them."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from functions.train.evaluation.agreement import MAX_RELATIVE, MIN_COSINE, MIN_SAME
from pilotlight.contracts.capture_policy import CapturePolicy
from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.feature_profile import FeatureProfile
from pilotlight.contracts.manifest import Manifest
from pilotlight.registry.registry import version_path
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.functions.train.convert.conftest import Publish, Refused

WIDTH, CLASSES = 64, 16


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x (batch, 64) to logits (batch, 16), its weights in a file beside it."""
    random, path = np.random.default_rng(0), tmp_path_factory.mktemp("graph") / "m.onnx"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("x", WIDTH), ("y", CLASSES))
    ]
    sizes = {"a": (WIDTH, 256), "b": (256, CLASSES)}
    constants = [
        onnx.numpy_helper.from_array(random.standard_normal(size).astype(np.float32) / 8, name)
        for name, size in sizes.items()
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "b"], ["y"], "second"),
    ]
    made = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    model = helper.make_model(made, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def report(kept: str, manifest: Manifest) -> Any:  # noqa: ANN401 - JSON
    return msgspec.json.decode(open_store(kept).get(version_path(manifest.name, manifest.version, "report.json")).data)


def test_auto_without_data_goes_by_the_agreement_with_fp32(publish: Publish, kept: str, graph: Path) -> None:
    manifest = publish(graph, "--quantize", "auto", name="auto")
    found = report(kept, manifest)
    (output,) = found["outputs"]
    close = output["same"] >= MIN_SAME and output["relative"] <= MAX_RELATIVE and output["cosine"] >= MIN_COSINE
    assert (set(manifest.variants), manifest.serve) == ({"fp32", "int8"}, "int8" if close else "fp32")
    assert found["verdict"].startswith(f"{manifest.serve} is served: int8 takes 0.")
    assert "over 48 examples, made up or of its origin" in found["verdict"]
    assert 0.99 < found["cosine"] < 1
    assert found["size_ratio"] < 0.4


def test_auto_with_data_serves_what_the_ladder_finds(publish: Publish, kept: str, graph: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((400, WIDTH)).astype(np.float32)
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(graph).graph.initializer}
    scores = np.maximum(x @ constants["a"], 0) @ constants["b"]
    keep = np.sort(scores, axis=1)[:, -1] - np.sort(scores, axis=1)[:, -2] > 0.2  # quantization turns none of these
    np.savez(tmp_path / "e.npz", x=x[keep], label=scores[keep].argmax(axis=1))
    manifest = publish(graph, "--quantize", "auto", "--evaluation", tmp_path / "e.npz", name="laddered")
    assert (manifest.serve, manifest.metric) == ("int8", "accuracy")
    assert report(kept, manifest)["rungs"][-1]["holds"]


def test_data_give_a_profile_and_options_a_policy(publish: Publish, kept: str, graph: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((200, WIDTH)).astype(np.float32)
    np.savez(tmp_path / "e.npz", x=x, label=np.arange(200) % 16)
    plain = publish(graph, "--evaluation", tmp_path / "e.npz", name="profiled")
    assert plain.capture is None
    found = profile(kept, plain)
    assert (found.examples, found.answered, len(found.features)) == (200, 200, WIDTH)
    assert set(found.answers) == {"y[0]", *(f"y[{place}]" for place in range(1, 16))}
    words = ["--evaluation", tmp_path / "e.npz", "--capture", "whole", "--mask", "y=drop", "--mask", "*=drop"]
    masked = publish(graph, *words, name="profiled")
    assert masked.capture == CapturePolicy(keep="whole", mask={"y": "drop"}, others="drop")
    assert profile(kept, masked).features == profile(kept, masked).answers == {}
    assert publish(fakes.MODELS / "square.onnx", "--capture", "off", name="silent").capture == CapturePolicy(keep="off")


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ("x", "--mask 'x' is not FIELD=WORD, as in age=drop"),
        ("x=burn", "--mask x=burn is wrong: Invalid enum value 'burn'"),
        ("z=drop", "--mask masks ['z'], but its fields are ['x', 'y']"),
    ],
)
def test_a_mask_that_masks_nothing_is_refused(refused: Refused, mask: str, said: str) -> None:
    assert said in refused(fakes.MODELS / "square.onnx", "--mask", mask)


def profile(kept: str, manifest: Manifest) -> FeatureProfile:
    """The profile of a version."""
    assert manifest.profile is not None
    path = version_path(manifest.name, manifest.version, manifest.profile)
    return decode_document(open_store(kept).get(path).data, FeatureProfile, path)


def test_four_bits_are_smaller_than_eight(publish: Publish, graph: Path) -> None:
    sizes = {}
    for precision in ("int8", "int4"):
        manifest = publish(graph, "--quantize", precision, name=f"in-{precision}")
        assert manifest.serve == precision
        sizes[precision] = manifest.graph_file.bytes
    assert sizes["int4"] < sizes["int8"]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"z": np.zeros((4, WIDTH))}, "has no array 'x'; the graph's inputs are ['x']"),
        ({"x": np.zeros((4, WIDTH))}, "must hold one array besides ['x'], the right answers; it holds []"),
        ({"x": np.zeros((4, 3)), "label": np.zeros(4, int)}, "'x' has shape [4, 3], the graph takes [-1, 64]"),
        ({"x": np.zeros((4, WIDTH)), "label": np.zeros(3, int)}, "holds arrays of [3, 4] examples"),
        (
            {"x": np.zeros((4, WIDTH)), "label": np.full(4, 99)},
            "up to class 99, in row 0, and the graph gives scores for 16",
        ),
        ({"x": np.array([{}] * 4, object), "label": np.zeros(4, int)}, "is not an npz of plain arrays"),
    ],
)
def test_examples_that_do_not_fit_are_refused(
    refused: Refused, graph: Path, tmp_path: Path, arrays: dict[str, Any], said: str
) -> None:
    np.savez(tmp_path / "e.npz", allow_pickle=True, **arrays)
    assert said in refused(graph, "--quantize", "auto", "--evaluation", tmp_path / "e.npz")


def test_a_graph_without_weights_is_not_made_larger(refused: Refused) -> None:
    assert "publish it without --quantize" in refused(fakes.MODELS / "square.onnx", "--quantize", "int8")


def test_a_folder_that_is_no_model_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text(json.dumps({}))
    assert "holds neither an ONNX graph nor a config.json" in refused(tmp_path)
