"""A model of the user's own is trained, exported and kept like any other, and what is wrong with it is told before."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from functions.train.__main__ import main
from functions.train.data.split import Splits
from functions.train.models import build, custom
from functions.train.publish import choose_unknown_treatment
from functions.train.training.trainer import seed_torch
from pilotlight.contracts.processing import ClassificationPostprocessing, TableColumn, TablePreprocessing
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import UnknownCategory
from pilotlight.recipes.schema import CustomOptions, load_recipe
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests.functions.predict.test_handler import Function

NET = """
from torch import nn
from sibling import WIDTH


def build(input_shape, outputs, hidden=WIDTH):
    return nn.Sequential(nn.Linear(input_shape[0], hidden), nn.Tanh(), nn.Linear(hidden, outputs))
"""


def options(word: str = "net:build", **arguments: Any) -> CustomOptions:  # noqa: ANN401
    return CustomOptions(architecture="custom", factory=word, arguments=arguments)


MISTAKES = [
    ("nothing:build", "", "there is no module 'nothing' beside the recipe in"),
    ("net:make", "build = 3", "'make' is not there in net"),
    ("net:build", "build = 3", "'build' is no function in net"),
    ("net:build", "1 / 0", "The module 'net' of model.factory raised ZeroDivisionError: division by zero"),
    ("net:build", "import nowhere", "raised ModuleNotFoundError: No module named 'nowhere'"),
    ("net:build", "def build(", "The module 'net' of model.factory raised SyntaxError"),
    ("net:build", "def build(shape, outputs): raise KeyError('x')", "net:build raised KeyError: 'x'"),
    ("net:build", "def build(shape): pass", "net:build raised TypeError"),
    ("net:build", "def build(shape, outputs): return 3", "net:build returned a int; it must return a torch.nn.Module"),
    ("net:build", "build = lambda shape, outputs: nn.Flatten()", "returned a Flatten without weights"),
    ("net:build", "build = lambda shape, outputs: L(nn.Linear(64, 9))", "gives (2, 9) for 2 examples; it must give"),
    ("net:build", "build = lambda shape, outputs: L(nn.Linear(9, 10))", "raised, for a batch of 2, RuntimeError"),
    ("net:build", "build = lambda shape, outputs: S(64, outputs)", "cannot be exported, and so not be served"),
]  # fmt: skip
PREAMBLE = """
import torch
from torch import nn
L = lambda layer: nn.Sequential(nn.Flatten(), layer)
class S(nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1)) if float(x.sum()) > 0 else super().forward(x.flatten(1)) * 2
"""


@pytest.mark.parametrize(("word", "text", "said"), MISTAKES, ids=[said for _, _, said in MISTAKES])
def test_mistake_is_one_sentence(splits: Splits, tmp_path: Path, word: str, text: str, said: str) -> None:
    (tmp_path / "net.py").write_text(PREAMBLE + text)
    with pytest.raises(InvalidInputError) as caught:
        custom.check_custom_network(
            build.build_model(options(word), splits.train, tmp_path), splits.train, word, load_recipe("digits").export
        )
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", ["net", "net:", ":build", "net:build()", "../net:build", "net.py:a b"])
def test_word_that_names_no_function_is_refused(word: str) -> None:
    with pytest.raises(InvalidInputError, match=r"model\.factory is"):
        load_recipe("digits", [f"model={{architecture: custom, factory: '{word}'}}"])


def test_folder_is_on_the_path_only_for_the_import(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "sibling.py").write_text("WIDTH = 5\n")
    before = list(sys.path)
    found = custom.load_factory(options(), tmp_path)
    assert sys.path == before
    assert "net" not in sys.modules
    assert found.source == NET
    assert custom.load_factory(options(), tmp_path).function is found.function
    (tmp_path / "net.py").write_text(NET + "\n")
    assert custom.load_factory(options(), tmp_path).function is not found.function
    del sys.modules["sibling"]


def test_installed_module_will_do() -> None:
    found = custom.load_factory(options("torch.nn:Linear"), Path())
    assert found.function is nn.Linear


def test_same_seed_same_weights(splits: Splits, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef build(s, o): return nn.Sequential(nn.Flatten(), nn.Linear(64, o))"
    )
    drawn = []
    for _ in range(2):
        with seed_torch(4):
            drawn.append(build.build_model(options(), splits.train, tmp_path).state_dict())
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])


RECIPE = """
name: mine
data: {path: "mine.csv", target: label, drop: [id], missing: mean, seed: 1,
       fractions: {train: 0.6, validation: 0.2, test: 0.2}}
model: {architecture: custom, factory: "net:build", arguments: {hidden: 6}}
optimiser: {name: adam, learning_rate: 0.05}
schedule: {name: constant}
batch_size: 16
epochs: 6
early_stopping: {patience: 6}
quantization: {scheme: dynamic, budget: 100}
"""


def write_home(folder: Path) -> Path:
    """Write a recipe, a table and a model."""
    rows = [f"{n},{n % 7},{'red' if n % 2 else 'blue'},{'' if n == 50 else n % 5},{n % 2 + 5}" for n in range(150)]
    (folder / "mine.csv").write_text("id,a,colour,b,label\n" + "\n".join([*rows, rows[0]]) + "\n")
    (folder / "net.py").write_text(NET.replace("from sibling import WIDTH", "WIDTH = 4"))
    (folder / "mine.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a recipe, a table and a model."""
    return write_home(tmp_path)


def train(home: Path, *words: str) -> int:
    return main([str(home / "mine.yaml"), "--store", str(home / "store"), "--run", "r", *words])


@dataclass(frozen=True)
class Trained:
    """A home where a model was trained, and what was written meanwhile."""

    home: Path
    out: str
    err: str


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    home = write_home(tmp_path_factory.mktemp("mine"))
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        assert train(home) == 0
    return Trained(home, out.getvalue(), err.getvalue())


def test_own_table_and_own_model_are_trained_and_published(mine: Trained) -> None:
    home, out, err = mine.home, mine.out, " ".join(mine.err.split())
    assert out == "mine:1\n"
    left_out = "left out of 151 rows: 0 with missing values, 80 duplicates; constant columns: none"
    for said in (left_out, "missing values are filled", "text as categories: colour", "net:build takes, gives"):
        assert said in err
    store = open_store(str(home / "store"))
    manifest = Registry(store).load_manifest("mine", 1)
    assert manifest.labels == ("5", "6")
    assert manifest.postprocess == ClassificationPostprocessing(output="logits")
    assert manifest.training is not None
    noted = json.loads(store.get("runs/r/data.json").data)
    assert noted["sha256"] == manifest.training.data_sha256
    assert noted["cleaning"]["duplicates"] == 80
    report = json.loads(store.get("models/mine/versions/1/report.json").data)
    assert report["cleaning"] == noted["cleaning"]
    assert isinstance(manifest.preprocess, TablePreprocessing)
    assert manifest.preprocess.columns == (
        TableColumn(name="a", missing="nan"),
        TableColumn(name="colour", categories=("blue", "red"), encoding="index", missing="blue"),
        TableColumn(name="b", missing="nan"),
    )
    assert manifest.input_standardization is not None
    assert manifest.input_standardization.names == ("a", "colour=blue", "colour=red", "b")
    source = (home / "net.py").read_bytes()
    for path in ("runs/r/factory.py", "models/mine/versions/1/factory.py"):
        assert store.get(path).data == source
    assert manifest.get_file("factory.py").bytes == len(source)


def test_own_model_is_served_by_rows_and_by_columns(mine: Trained) -> None:
    call = Function(str(mine.home / "store"))
    rows = [3, 1, 2, 3, 0, 2]
    body = {"inputs": [{"name": "features", "shape": [2, 3], "datatype": "FP32", "data": rows}]}
    status, answer = call("POST", "/v2/models/mine/infer", body)
    assert status == 200
    logits = answer["outputs"][0]["data"]
    assert [logits[0] < logits[1], logits[2] < logits[3]] == [True, False]  # red is odd, and odd is 6
    named = [
        {"name": "a", "shape": [2], "datatype": "FP64", "data": [3, 3]},
        {"name": "colour", "shape": [2], "datatype": "BYTES", "data": ["red", "blue"]},
        {"name": "b", "shape": [2], "datatype": "FP64", "data": [2, 2]},
    ]
    status, answer = call("POST", "/v2/models/mine/infer", {"inputs": named})
    assert status == 200
    assert {output["name"]: output["data"] for output in answer["outputs"]}["label"] == ["6", "5"]
    named[1]["data"] = ["red", "mauve"]  # which no row of training had: as a gap, which is filled with blue
    status, answer = call("POST", "/v2/models/mine/infer", {"inputs": named})
    assert status == 200
    assert {output["name"]: output["data"] for output in answer["outputs"]}["label"] == ["6", "5"]


def test_probabilities_of_an_own_model_are_not_squeezed_again(home: Path) -> None:
    net = (home / "net.py").read_text()
    (home / "net.py").write_text(net.replace("outputs))\n", "outputs), nn.Softmax(-1))\n"))
    assert train(home, "--set", "epochs=2") == 0
    store = str(home / "store")
    finish = Registry(open_store(store)).load_manifest("mine", 1).postprocess
    assert isinstance(finish, ClassificationPostprocessing)
    assert finish.activation == "none"
    body = {
        "inputs": [
            {"name": "a", "shape": [1], "datatype": "FP64", "data": [3]},
            {"name": "colour", "shape": [1], "datatype": "BYTES", "data": ["red"]},
            {"name": "b", "shape": [1], "datatype": "FP64", "data": [2]},
        ],
        "outputs": [{"name": "logits"}, {"name": "probabilities"}],
    }
    status, answer = Function(store)("POST", "/v2/models/mine/infer", body)
    assert status == 200, answer
    found = {output["name"]: np.array(output["data"]) for output in answer["outputs"]}
    assert found["probabilities"] == pytest.approx(found["logits"], abs=1e-6)


@pytest.mark.parametrize(
    ("fill", "wanted", "recorded"),
    [(None, "missing", "zeros"), (None, "refuse", "refuse"), (1.0, "missing", "missing"), (1.0, "zeros", "zeros")],
)
def test_unknown_categories_are_zeros_where_gaps_have_no_fill(
    fill: float | None, wanted: UnknownCategory, recorded: str
) -> None:
    assert choose_unknown_treatment(("blue", "red"), fill, wanted) == recorded
    assert choose_unknown_treatment((), fill, wanted) == "missing"  # a number


def test_a_category_that_no_row_of_training_had(home: Path) -> None:
    assert train(home, "--set", "data.missing=drop", "data.unknown=refuse") == 0
    store = str(home / "store")
    manifest = Registry(open_store(store)).load_manifest("mine", 1)
    assert isinstance(manifest.preprocess, TablePreprocessing)
    assert manifest.preprocess.columns[1].unknown == "refuse"
    named = [
        {"name": "a", "shape": [2], "datatype": "FP64", "data": [3, 3]},
        {"name": "colour", "shape": [2], "datatype": "BYTES", "data": ["red", "mauve"]},
        {"name": "b", "shape": [2], "datatype": "FP64", "data": [2, 2]},
    ]
    status, answer = Function(store)("POST", "/v2/models/mine/infer", {"inputs": named})
    assert status == 400
    assert "Column 'colour', row 1, is 'mauve', which is none of ['blue', 'red']." in answer["error"]


def test_run_does_not_go_on_with_other_data_or_another_model(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(home, "--time-budget", "1e-9") == 75
    with (home / "mine.csv").open("a") as file:
        file.write("999,1,red,4,6\n")
    store = open_store(str(home / "store"))
    store.put("runs/r/data.json", json.dumps({"sha256": "0" * 64}).encode())
    assert train(home) == 2
    assert "was started on other data; give another --run" in capsys.readouterr().err
    store.delete("runs/r/data.json")
    store.put("runs/r/factory.py", b"raise SystemExit('never run')")
    assert train(home) == 2
    assert "was started with another factory.py; give another --run" in capsys.readouterr().err


def test_mistake_in_the_data_ends_with_two_before_the_training(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (home / "mine.csv").open("a") as file:
        file.write("7,8\n")
    assert train(home) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == "mine.csv, row 152 has 2 values, and its header names 5: '7,8'."
    assert "epoch" not in err
