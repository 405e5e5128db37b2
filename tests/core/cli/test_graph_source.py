"""Graphs that are there already: files, weights beside them, folders, Triton's repositories; and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import Manifest
from pilotlight.gate import graph_probe
from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry
from pilotlight.runtime import golden, onnx_header
from pilotlight.runtime import session as session_module
from pilotlight.runtime.golden import GoldenDocument
from pilotlight.runtime.session import open_session
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.core.cli.conftest import Run
from tests.graph_writer import part

ROOT = Path(__file__).parents[3]
CONFIG = """
name: "mine"  # a comment
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]
output { name: "y", data_type: TYPE_FP32, dims: 3, label_filename: 'labels.txt' }
instance_group [ { kind: KIND_CPU } ]
"""


def rankless() -> bytes:
    """y = x, float, with no shape at all."""
    kind = part(2, part(1, part(1, 1)))
    opsets = part(8, part(1, b"") + part(2, 18))
    both = part(11, part(1, b"x") + kind) + part(12, part(1, b"y") + kind)
    return part(1, 10) + opsets + part(7, part(1, node(b"Identity", b"x")) + part(2, b"g") + both)


def nested(depth: int) -> bytes:
    """A graph in a graph in a graph."""
    inner = b""
    for _ in range(depth):
        inner = part(1, node(b"If", b"x") + part(5, part(6, inner)))
    return model(node(b"If", b"x") + part(5, part(6, inner)))


def ends() -> bytes:
    """Input x and output y, float [batch, 3], of a GraphProto."""
    shape = part(1, part(2, b"batch")) + part(1, part(1, 3))
    kind = part(2, part(1, part(1, 1) + part(2, shape)))
    return part(2, b"g") + part(11, part(1, b"x") + kind) + part(12, part(1, b"y") + kind)


def model(nodes: bytes, *, ir: int = 10, opset: int = 18, more: bytes = b"") -> bytes:
    """A ModelProto."""
    opsets = part(8, part(1, b"") + part(2, opset)) + part(8, part(1, b"mine") + part(2, 1))
    return part(1, ir) + opsets + part(7, part(1, nodes) + ends()) + more


def node(name: bytes, *inputs: bytes, domain: bytes = b"") -> bytes:
    """A NodeProto that gives y."""
    return b"".join(part(1, one) for one in inputs) + part(2, b"y") + part(4, name) + part(7, domain)


def apart(place: str) -> bytes:
    """y = x + w, w in a file of its own."""
    entries = {"location": place, "offset": "0", "length": "12"}
    external = b"".join(part(13, part(1, k.encode()) + part(2, v.encode())) for k, v in entries.items())
    weights = part(1, 3) + part(2, 1) + part(8, b"w") + external + part(14, 1)
    opsets = part(8, part(1, b"") + part(2, 18))
    return part(1, 10) + opsets + part(7, part(1, node(b"Add", b"x", b"w")) + ends() + part(5, weights))


def published(run: Run, store: str, *words: object) -> Manifest:
    code, out, err = run("publish", *map(str, words), "--name", "m")
    assert code == 0, err
    return Registry(open_store(store)).load_manifest("m", int(out.strip().removeprefix("m:")))


def repository(path: Path, config: str = CONFIG) -> Path:
    for version in ("1", "2", "10"):
        (path / version).mkdir(parents=True)
        (path / version / "model.onnx").write_bytes(fakes.graph("double" if version == "10" else "square"))
    (path / "config.pbtxt").write_text(config)
    (path / "labels.txt").write_text("cat\ndog\nbird\n")
    return path


def test_golden_requests_are_made_up_and_recorded(run: Run, store: str) -> None:
    manifest = published(run, store, fakes.MODELS / "double.onnx")
    assert manifest.golden == "golden.json"
    assert manifest.request_cost is not None
    assert ([point.rows for point in manifest.request_cost.points], manifest.request_cost.rows_independent) == (
        [1, 8, 64],
        True,
    )
    stored = Registry(open_store(store)).store.get("models/m/versions/1/golden.json").data
    golden.replay_exchanges(
        decode_document(stored, GoldenDocument, "golden.json"), open_session(str(fakes.MODELS / "double.onnx"))
    )


def test_a_graph_is_not_opened_again_after_its_examination(
    run: Run, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = list[str]()

    def open_native(path: Path | str, options: Any) -> Any:  # noqa: ANN401 - onnxruntime ships no types
        opened.append(str(path))
        return really_open(path, options)

    really_open = session_module.open_native
    monkeypatch.setattr(session_module, "open_native", open_native)
    published(run, store, fakes.MODELS / "double.onnx")
    assert opened == []
    graph_probe.examine(str(fakes.MODELS / "double.onnx"), "fp32")
    assert len(opened) == 2  # a random answer may be the same in each run of one session, or in each new one


def test_a_card_says_what_is_known(run: Run, store: str) -> None:
    published(run, store, fakes.MODELS / "double.onnx")
    card = Registry(open_store(store)).store.get("models/m/versions/1/model-card.md").data.decode()
    assert card.startswith("# m\n\nThe ONNX graph `double.onnx`, opset ")
    assert "| in | `x` | FP32 | `[batch, 3]` |\n| out | `y` | FP32 | `[batch, 3]` |" in card
    assert "were recorded and repeated" in card


def test_weights_beside_the_graph_come_along_and_answer(run: Run, store: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(apart("w.bin"))
    (tmp_path / "w.bin").write_bytes(np.array([1, 2, 3], np.float32).tobytes())
    published(run, store, tmp_path / "m.onnx")
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment={"PILOTLIGHT_STORE": store})
    with gateway.serve_in_background() as url:
        body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [10, 20, 30]}]}
        (tmp_path / "request.json").write_text(json.dumps(body))
        code, out, err = run("predict", "m", "--input", str(tmp_path / "request.json"), "--url", url, "--json")
    assert code == 0, err
    assert json.loads(out)["outputs"][0]["data"] == [11, 22, 33]


@pytest.mark.parametrize("place", ["../../etc/passwd", "/etc/passwd", "sub/../../up.bin", "link.bin"])
def test_weights_outside_the_folder_are_refused(run: Run, store: str, tmp_path: Path, place: str) -> None:
    (tmp_path / "link.bin").symlink_to("/etc/passwd")
    (tmp_path / "m.onnx").write_bytes(apart(place))
    code, _, err = run("publish", str(tmp_path / "m.onnx"), "--name", "m")
    assert (code, f"keeps weights at {place!r}, outside its own folder" in " ".join(err.split())) == (2, True)
    assert not Path(store).exists() or not [path for path in Path(store).rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (apart("w.bin"), "keeps weights in 'w.bin', which is not beside it"),
        (model(node(b"Relu", b"x"), ir=15), "is in ONNX IR version 15; 14 is the newest"),
        (model(node(b"Relu", b"x"), opset=29), "uses opset 29; 28 is the newest"),
        (model(node(b"Foo", b"x", domain=b"mine")), "operators, which onnxruntime alone cannot run: mine.Foo;"),
        (model(node(b"Nonsense", b"x")), "cannot be served"),
        (rankless(), "does not say how many dimensions its input 'x' has"),
        (nested(2000), "is not an ONNX file: maximum recursion depth exceeded"),
        (b"", "is not an ONNX file"),
        (b"hello, world", "is not an ONNX file"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_served_are_refused(
    run: Run, store: str, tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    code, _, err = run("publish", str(tmp_path / "m.onnx"), "--name", "m")
    assert (code, said in " ".join(err.split())) == (2, True), err
    assert "Traceback" not in err
    assert not Path(store).exists() or not [path for path in Path(store).rglob("*") if path.is_file()]


def test_the_newest_format_that_is_let_through_opens(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model(node(b"Relu", b"x"), ir=onnx_header.NEWEST_IR_VERSION, opset=onnx_header.NEWEST_OPSET))
    onnx_header.check_onnx_file(path)
    assert open_session(str(path)).inputs[0].name == "x"


def test_what_no_function_has_memory_for_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(apart("w.bin"))
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(6_000_000_000)  # takes no room on the disk
    code, _, err = run("publish", str(tmp_path / "m.onnx"), "--name", "m")
    assert (code, "a function of 10,240 MB, the largest there is" in " ".join(err.split())) == (2, True)


def test_a_folder_with_one_graph_is_as_good_as_the_file(run: Run, store: str, tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(fakes.graph("tokens"))
    (tmp_path / "tokenizer.json").write_bytes((fakes.MODELS / "minilm/tokenizer.json").read_bytes())
    assert published(run, store, tmp_path, "--task", "text").asset_files


def test_several_graphs_must_be_told_apart(run: Run, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).write_bytes(fakes.graph("double"))
    code, _, err = run("publish", str(tmp_path), "--name", "m")
    assert (code, "several graphs, a.onnx, b.onnx; name the one" in " ".join(err.split())) == (2, True)


@pytest.mark.parametrize(("place", "answer"), [("", 2), ("10", 2), ("2", 1), ("2/model.onnx", 1)])
def test_a_triton_model_is_its_newest_version_or_the_one_named(
    run: Run, store: str, tmp_path: Path, place: str, answer: int
) -> None:
    manifest = published(run, store, repository(tmp_path / "mine") / place)
    assert manifest.labels == ("cat", "dog", "bird")
    graph = fakes.graph("double" if answer == 2 else "square")
    stored = open_store(store).get(f"models/m/versions/{manifest.version}/model.fp32.onnx")
    assert stored.data == graph


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (CONFIG.replace('"x"', '"z"'), "has the input 'z', but the graph has ['x']"),
        (CONFIG.replace("[ 3 ]", "[ 4 ]"), "has the input 'x' as FP32 [-1, 4], the graph as FP32 [-1, 3]"),
        (CONFIG.replace("TYPE_FP32 dims", "TYPE_INT64 dims"), "has the input 'x' as INT64"),
        (CONFIG.replace("onnxruntime", "tensorrt"), "is of a tensorrt model; only ONNX graphs"),
        (
            CONFIG.replace("labels.txt", "../labels.txt"),
            "has the labels '../labels.txt', which are not a file beside it",
        ),
        (CONFIG.replace("[ 3 ]", "[ three ]"), "has dims: three, which is no whole number"),
        ('backend: "onnxruntime" max_batch_size: many', "has max_batch_size: many, which is no whole number"),
        ('backend: "onnxruntime" input: "x"', "has the tensor 'x'; it must be { name: ... }"),
        (
            'default_model_filename: "../../other.onnx"',
            "has the graph '../../other.onnx', which is not a file of the model",
        ),
        (CONFIG + "input [", "is not in protobuf's text format: it ends too early"),
        (CONFIG + "}", "is not in protobuf's text format at '}'"),
        (CONFIG + "=", "is not in protobuf's text format at '='"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(run: Run, tmp_path: Path, config: str, said: str) -> None:
    code, _, err = run("publish", str(repository(tmp_path / "mine", config)), "--name", "m")
    assert (code, said in " ".join(err.split())) == (2, True), err


def test_texts_in_another_encoding_are_refused(run: Run, tmp_path: Path) -> None:
    model = repository(tmp_path / "mine")
    (tmp_path / "labels.txt").write_bytes(b"k\xe4se\n")
    for words in ([str(model), "--labels", str(tmp_path / "labels.txt")], [str(model)]):
        code, _, err = run("publish", *words, "--name", "m")
        assert (code, "labels.txt cannot be read as text" in " ".join(err.split())) == (2, True), err
        (model / "labels.txt").write_bytes(b"k\xe4se\n")
    (model / "config.pbtxt").write_bytes(b"# k\xe4se\n")
    code, _, err = run("publish", str(model), "--name", "m")
    assert (code, "config.pbtxt cannot be read as text" in " ".join(err.split())) == (2, True), err


def test_a_version_that_is_not_there_is_refused(run: Run, tmp_path: Path) -> None:
    (repository(tmp_path / "mine") / "7").mkdir()
    code, _, err = run("publish", str(tmp_path / "mine" / "7"), "--name", "m")
    assert (code, "holds no ONNX graph of version 7" in " ".join(err.split())) == (2, True)


def test_only_graphs_that_are_there_are_published_without_torch(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotlight.cli.model_conversion.find_spec", lambda name: None)
    code, _, err = run("publish", str(tmp_path / "m.py:factory"), "--name", "m")
    assert (code, "run pip install -e '.[train]'" in " ".join(err.split())) == (1, True)
