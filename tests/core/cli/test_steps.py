"""`publish` with the steps around a graph, and `predict` with what people have: photographs, texts, tables."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image as Pillow

from pilotlight.cli import processing_steps
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.processing import (
    ClassificationPostprocessing,
    EmbeddingPostprocessing,
    ImagePreprocessing,
    RegressionPostprocessing,
    TableColumn,
    TablePreprocessing,
    TextPreprocessing,
)
from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.core.cli.conftest import Run

ROOT = Path(__file__).parents[3]
VIT = {"do_resize": True, "size": {"height": 224, "width": 224}, "resample": 3, "do_rescale": True,
       "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}  # fmt: skip
TABLE = {"columns": [{"name": "a", "missing": 0.5}, {"name": "b"}, {"name": "c", "mean": 1}]}


SOUND = {"rate": 8000, "window": 2, "constants": [{"input": "gain", "value": 4}],
         "states": [{"input": "sum", "output": "next"}]}  # fmt: skip


def folder(path: Path, graph: str, **documents: object) -> str:
    """A model with files beside it, as Hugging Face keeps them; the path of the graph."""
    (path / "model.onnx").write_bytes(fakes.graph(graph))
    for name, content in documents.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return str(path / "model.onnx")


def published(run: Run, store: str, *words: str) -> Manifest:
    code, out, err = run("publish", *words, "--name", "m")
    assert code == 0, err
    return Registry(open_store(store)).load_manifest("m", int(out.strip().removeprefix("m:")))


def steps(path: Path, content: Mapping[str, object]) -> str:
    file = path / "steps.json"
    file.write_text(json.dumps(content))
    return str(file)


def test_a_vision_transformer_is_read_from_its_own_files(run: Run, store: str, tmp_path: Path) -> None:
    labels = {"10": "ten", "2": "two", "0": "zero"}
    graph = folder(tmp_path, "colours", preprocessor_config=VIT, config={"id2label": labels})
    manifest = published(run, store, graph, "--task", "image")
    assert manifest.preprocess == ImagePreprocessing(
        input="pixels", background=None, resize=(224, 224), filter="bicubic", mean=(0.5,) * 3, deviation=(0.5,) * 3
    )
    assert manifest.labels == ("zero", "two", "ten")
    assert manifest.postprocess == ClassificationPostprocessing(output="scores")


def test_a_shortest_edge_and_a_crop_are_read(run: Run, store: str, tmp_path: Path) -> None:
    config = {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224, "resample": 2,
              "do_normalize": False, "do_flip_channel_order": True}  # fmt: skip
    manifest = published(run, store, folder(tmp_path, "colours", preprocessor_config=config), "--task", "image")
    assert manifest.preprocess == ImagePreprocessing(
        input="pixels", background=None, shortest=256, crop=(224, 224), colour="BGR"
    )
    assert manifest.postprocess is None


def test_a_sentence_transformer_is_read_from_its_own_files(run: Run, store: str, tmp_path: Path) -> None:
    graph = folder(tmp_path, "tokens", sentence_bert_config={"max_seq_length": 256})
    (tmp_path / "tokenizer.json").write_bytes((fakes.MODELS / "minilm/tokenizer.json").read_bytes())
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling/config.json").write_text('{"pooling_mode_cls_token": true}')
    manifest = published(run, store, graph, "--task", "text")
    assert manifest.preprocess == TextPreprocessing(max_length=256)
    assert manifest.postprocess == EmbeddingPostprocessing(output="last_hidden_state", pooling="cls")
    assert [file.path for file in manifest.asset_files] == ["tokenizer.json"]


def test_steps_come_from_a_file_and_the_graph(run: Run, store: str, tmp_path: Path) -> None:
    (tmp_path / "steps.yaml").write_text("prepare:\n  kind: image\n  resize: [8, 8]\nfinish: {kind: regression}\n")
    manifest = published(run, store, folder(tmp_path, "colours"), "--processing", str(tmp_path / "steps.yaml"))
    assert manifest.task == "image"
    assert manifest.preprocess == ImagePreprocessing(input="pixels", resize=(8, 8))
    assert manifest.postprocess == RegressionPostprocessing(output="scores")


@pytest.mark.parametrize(
    ("shape", "layout", "length"),
    [
        (["batch", "samples"], "NS", None),
        ([1, 16_000], "NS", 16_000),
        (["n", 1, 400], "N1S", 400),
        (["n", 400, 1], "NS1", 400),
        (["samples"], "S", None),
    ],
)
def test_the_form_of_sound_is_read_from_the_graph(shape: list[int | str], layout: str, length: int | None) -> None:
    assert processing_steps.infer_audio_steps(shape, {"rate": 8000}) == {"layout": layout} | (
        {} if length is None else {"length": length}
    )
    assert "length" not in processing_steps.infer_audio_steps(shape, {"rate": 8000, "window": 99})
    assert processing_steps.infer_audio_steps(shape, {"spectrogram": {}}) == {}


def test_tabular_needs_its_columns(run: Run, store: str, tmp_path: Path) -> None:
    graph = folder(tmp_path, "double")
    file = steps(tmp_path, {"prepare": TABLE})
    manifest = published(run, store, graph, "--task", "tabular", "--processing", file)
    columns = (TableColumn(name="a", missing=0.5), TableColumn(name="b"), TableColumn(name="c", mean=1.0))
    assert manifest.preprocess == TablePreprocessing(input="x", columns=columns)
    assert run("publish", graph, "--name", "m", "--task", "tabular")[0] == 2


@pytest.mark.parametrize(
    ("task", "documents", "content", "hint"),
    [
        ("image", {}, None, "No preprocessor_config.json in"),
        ("image", {"preprocessor_config": {"crop_pct": 0.9}}, None, "has 'crop_pct', which only its own code"),
        ("image", {"preprocessor_config": {"size": {"longest_edge": 9}}}, None, "has the size {'longest_edge': 9}"),
        ("image", {"preprocessor_config": [1]}, None, "must hold a mapping, not list"),
        ("text", {}, None, "No tokenizer.json in"),
        ("text", {"tokenizer": {}}, None, "cannot be published as text"),
        ("tabular", {}, None, "--task tabular needs --processing FILE"),
        ("audio", {}, None, "--task audio needs --processing FILE: at least prepare: {rate: 16000}"),
        ("audio", {}, {"prepare": {}}, "missing required field `rate`"),
        (
            "audio",
            {},
            {"prepare": {"rate": 8000, "constants": [{"input": "sr"}]}},
            "prepares the inputs ['x', 'sr'], but",
        ),
        ("audio", {}, {"prepare": {"rate": 8000, "hop": 3}}, "but no 'window'"),
        ("tabular", {}, {"prepare": {"columns": []}}, "length >= 1"),
        ("image", {}, {"prepare": TABLE | {"kind": "tabular"}}, "prepares 'tabular', but its task is 'image'"),
        ("image", {}, {"prepare": {"input": "y"}}, "prepares the input 'y', but the graph has ['x']"),
        ("image", {}, {"prepare": {"colour": "pink"}}, "'pink'"),
        ("image", {}, {"prepare": [1]}, "'prepare' must be a mapping of steps, not [1]"),
        ("image", {}, {"before": {}}, "has ['before']; it tells of 'prepare' and 'finish'"),
        ("tensor", {}, {"finish": {"kind": "painting"}}, "'painting'"),
    ],
)
def test_wrong_steps_get_one_sentence(
    run: Run, tmp_path: Path, task: str, documents: dict[str, object], content: dict[str, object] | None, hint: str
) -> None:
    words = ["--processing", steps(tmp_path, content)] if content is not None else []
    code, out, err = run("publish", folder(tmp_path, "double", **documents), "--name", "m", "--task", task, *words)
    assert (code, out) == (2, "")
    assert hint in " ".join(err.split())
    assert "Traceback" not in err


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server with a model for each task."""
    store = str(tmp_path_factory.mktemp("steps") / "store")
    with Gateway(
        ROOT / "template.yaml", port=0, workers=1, environment={"PILOTLIGHT_STORE": store}
    ).serve_in_background() as url:
        yield f"{url} {store}"


@pytest.fixture
def url(served: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    address, store = served.split(" ", 1)
    monkeypatch.setenv("PILOTLIGHT_STORE", store)
    if not Registry(open_store(store)).list_models():
        (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
        (tmp_path / "tokenizer.json").write_bytes((fakes.MODELS / "minilm/tokenizer.json").read_bytes())
        graph = folder(tmp_path, "colours", preprocessor_config=VIT)
        options = ["--task", "image", "--labels", str(tmp_path / "labels.txt")]
        assert run("publish", graph, "--name", "colours", *options)[0] == 0
        finish = {"kind": "embedding", "output": "last_hidden_state", "normalise": False}
        file = steps(tmp_path, {"prepare": {}, "finish": finish})
        options = ["--task", "text", "--processing", file]
        assert run("publish", folder(tmp_path, "tokens"), "--name", "words", *options)[0] == 0
        file = steps(tmp_path, {"prepare": TABLE, "finish": {"kind": "regression", "mean": [1]}})
        options = ["--task", "tabular", "--processing", file]
        assert run("publish", folder(tmp_path, "double"), "--name", "rows", *options)[0] == 0
        options = ["--task", "audio", "--processing", steps(tmp_path, {"prepare": SOUND})]
        assert run("publish", folder(tmp_path, "running"), "--name", "sums", *options)[0] == 0
    return address


def test_a_photograph_is_classified(run: Run, url: str, tmp_path: Path) -> None:
    Pillow.fromarray(np.full((9, 9, 3), (250, 20, 20), np.uint8)).save(tmp_path / "rose.JPG")
    code, out, err = run("predict", "colours", "--input", str(tmp_path / "rose.JPG"), "--url", url)
    assert code == 0, err
    version, line = out.splitlines()
    assert version == "colours:1"
    assert line.startswith("red ")
    assert 70 < float(line.removeprefix("red ").removesuffix("%")) < 90


def test_a_sound_is_heard_window_by_window(run: Run, url: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "steps.FLAC", np.array([1, 2, 3, 4, 5]) / 8, 8000)
    code, out, err = run("predict", "sums", "--input", str(tmp_path / "steps.FLAC"), "--url", url)
    assert code == 0, err
    assert out == "sums:1\ntotal FP32 [3, 1]: 1.5, 5, 7.5\n"


def test_each_line_of_a_text_is_embedded(run: Run, url: str, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("hello\n\nhello world\n")
    _, out, _ = run("predict", "words", "--input", str(tmp_path / "texts.txt"), "--url", url)
    first, second = (101 + 7592 + 102) / 3, (101 + 7592 + 2088 + 102) / 4
    assert out == f"words:1\nembedding FP32 [2, 2]: {first:.6g}, 0, {second:.6g}, 0\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "b,a,c\n2,,3\n-1,4,0\n"),
        ("t.json", '{"a": [null, 4], "b": [2, -1], "c": [3, 0]}'),
        ("t.json", '[{"a": null, "b": 2, "c": 3}, {"a": 4, "b": -1, "c": 0}]'),
        ("t.json", "[[null, 2, 3], [4, -1, 0]]"),
    ],
)
def test_tables_in_every_form(run: Run, url: str, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    code, out, err = run("predict", "rows", "--input", str(tmp_path / name), "--url", url)
    assert code == 0, err
    assert out == "rows:1\nprediction FP32 [2, 3]: 2, 5, 5, 9, -1, -1\n"


def test_long_answers_are_cut(run: Run, url: str, tmp_path: Path) -> None:
    rows = [[1, 2, 3]] * 10
    (tmp_path / "t.json").write_text(json.dumps(rows))
    _, out, _ = run("predict", "rows", "--input", str(tmp_path / "t.json"), "--url", url)
    assert out.endswith(" ... 30 values, --json shows all\n")


@pytest.mark.parametrize(
    ("model", "name", "content", "hint"),
    [
        ("colours", "a.png", b"nothing", "Image 0 is neither PNG nor JPEG"),
        ("rows", "a.png", b"nothing", "rows takes neither files nor texts, but a FP64 [-1], b FP64 [-1], c FP64 [-1]."),
        ("words", "a.txt", b"\xff", "is not UTF-8: invalid start byte at byte 0"),
        (
            "rows",
            "a.csv",
            b"a,b,d\n1,2,3\n",
            "'d' is not an input of rows; its inputs are ['a', 'b', 'c'] or ['table']",
        ),
        ("rows", "a.csv", b"a,b\n1,2\n", "'c' is missing"),
        ("rows", "a.csv", b"a,b,c\n1,2\n", "record 1 has 2 cells, but there are 3 columns"),
        ("rows", "a.csv", b"a,a\n1,2\n", "a line of different column names"),
        ("rows", "a.csv", b"a,b,c\n1,x,3\n", "Column 'b', row 0, is 'x', expected a number."),
        ("rows", "a.json", b"[1, 2]", "must hold records, rows or columns of ['a', 'b', 'c']"),
    ],
)
def test_wrong_input_gets_one_sentence(
    run: Run, url: str, tmp_path: Path, model: str, name: str, content: bytes, hint: str
) -> None:
    (tmp_path / name).write_bytes(content)
    code, out, err = run("predict", model, "--input", str(tmp_path / name), "--url", url)
    assert (code, out, hint in err) == (2, "", True), err
