"""Torch modules, .pt2 files and scikit-learn estimators: the same answers over HTTP as from their own framework."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import tritonclient.http as triton
from sklearn.datasets import load_iris

from pilotlight.runtime.datatypes import Array
from tests.functions.train.convert.conftest import Publish, Refused, imported

SOURCE = """
import warnings

import torch
from torch import nn
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(2, 4)

    def forward(self, left, right):
        return {"total": self.left(left) + self.right(right), "product": self.left(left) * self.right(right)}


def pair():
    torch.manual_seed(0)
    return Pair(), (torch.randn(1, 3), torch.randn(1, 2))


def wide():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 5)), torch.randn(2, 64)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(4, 3, batch_first=True)

    def forward(self, steps):
        return self.cells(steps)


def recurrent():
    torch.manual_seed(2)
    return Recurrent(), torch.randn(2, 5, 4)


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, *parts):
        return self.layer(parts[0] + parts[1])


def starred():
    torch.manual_seed(3)
    return Sum(), (torch.randn(2, 4), torch.randn(2, 4))


def compiled():
    torch.manual_seed(3)
    with warnings.catch_warnings(action="ignore"):  # torch's own, about itself
        return torch.compile(nn.Linear(4, 3)), torch.randn(2, 4)


class Branch(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Echo(nn.Module):
    def forward(self, output):
        return output * 2


class Lost(nn.Module):
    def forward(self, x):
        return x, None


class Nowhere(nn.Module):
    def forward(self, x):
        return x * float("nan")


class Loose(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = torch.ones(4, requires_grad=True) * 2

    def forward(self, x):
        return x * self.weights


class Narrowing(nn.Module):
    def forward(self, x):
        return x.bfloat16()


def ended():
    raise SystemExit(3)


loose = lambda: (Loose(), torch.randn(2, 4))
narrowing = lambda: (Narrowing(), torch.randn(2, 4))
narrow = lambda: (nn.Linear(3, 2), torch.randn(2, 4))
alone = lambda: (Echo(), (torch.randn(2, 4), torch.randn(2, 4)))
sparse = lambda: (nn.Identity(), torch.eye(4).to_sparse())
branch = lambda: (Branch(), torch.randn(2, 4))
echo = lambda: (Echo(), torch.randn(2, 4))
lost = lambda: (Lost(), torch.randn(2, 4))
nowhere = lambda: (Nowhere(), torch.randn(2, 4))
brief = lambda: (nn.Linear(4, 2).bfloat16(), torch.randn(2, 4).bfloat16())
scripted = lambda: (torch.jit.ScriptModule(), torch.randn(2, 4))


def broken():
    raise OSError("no disk")


def number():
    return 3


def classes():
    data = load_iris()
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, data.target_names[data.target])


numbers = Ridge().fit(*load_diabetes(return_X_y=True))
unfitted = Ridge()
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("brought") / "mine.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope="module")
def mine(file: Path) -> ModuleType:
    return imported(file)


def infer(client: triton.InferenceServerClient, name: str, output: str, **inputs: Array) -> Any:  # noqa: ANN401
    given = [triton.InferInput(key, list(values.shape), "FP32") for key, values in inputs.items()]
    for tensor, values in zip(given, inputs.values(), strict=True):
        tensor.set_data_from_numpy(values)
    asked = [triton.InferRequestedOutput(output)]
    return client.infer(name, given, outputs=asked).as_numpy(output)


def test_a_module_with_two_inputs_keeps_its_names(
    publish: Publish, client: triton.InferenceServerClient, file: Path, mine: ModuleType
) -> None:
    manifest = publish(f"{file}:pair", name="pair")
    assert [spec.name for spec in manifest.inputs] == ["left", "right"]
    assert manifest.golden == "golden.json"
    left, right = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    right = np.ascontiguousarray(right[:, :2])
    module, _ = mine.pair()
    expected = module(torch.from_numpy(left), torch.from_numpy(right))
    for name, answer in expected.items():
        found = infer(client, "pair", name, left=left, right=right)
        np.testing.assert_allclose(found, answer.detach().numpy(), atol=1e-5)


def test_an_answer_within_an_answer_is_told_part_by_part(
    publish: Publish, client: triton.InferenceServerClient, file: Path, mine: ModuleType
) -> None:
    publish(f"{file}:recurrent", name="recurrent")
    steps = np.random.default_rng(0).standard_normal((3, 5, 4)).astype(np.float32)
    states, (hidden, cell) = mine.recurrent()[0](torch.from_numpy(steps))
    for place, expected in enumerate((states, hidden, cell)):
        found = infer(client, "recurrent", f"output_{place}", steps=steps)
        np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(("name", "inputs"), [("starred", ["input_0", "input_1"]), ("compiled", ["input"])])
def test_modules_that_are_wrapped_or_take_any_number_of_inputs(
    publish: Publish, client: triton.InferenceServerClient, file: Path, mine: ModuleType, name: str, inputs: list[str]
) -> None:
    publish(f"{file}:{name}", name=name)
    values = np.random.default_rng(0).standard_normal((len(inputs), 5, 4)).astype(np.float32)
    module, _ = mine.starred()
    expected = module.layer(torch.from_numpy(values).sum(dim=0)).detach().numpy()
    found = infer(client, name, "output", **dict(zip(inputs, values, strict=True)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "branch",
            "which way it goes hangs on the values of an input, and a graph goes only one: torch.where takes both.",
        ),
        ("nowhere", "The model itself answers 'output' with NaN: nothing is published."),
    ],
)
def test_what_becomes_no_graph_is_told_in_one_line(
    command: Callable[..., tuple[int, str, str]], file: Path, tmp_path: Path, name: str, said: str
) -> None:
    code, out, err = command(f"{file}:{name}", "--name", "m", "--store", tmp_path / "untouched")
    assert (code, out) == (1, "")
    assert err.endswith(f"{said}\n")
    assert err.count("\n") == 1
    assert not (tmp_path / "untouched").exists()


def test_a_module_is_judged_and_quantized(
    publish: Publish, client: triton.InferenceServerClient, file: Path, mine: ModuleType, tmp_path: Path
) -> None:
    module, _ = mine.wide()
    x = np.random.default_rng(0).standard_normal((200, 64)).astype(np.float32)
    logits = module(torch.from_numpy(x)).detach().numpy()
    np.savez(tmp_path / "e.npz", input=x, label=logits.argmax(axis=1))
    manifest = publish(f"{file}:wide", "--quantize", "int8", "--evaluation", tmp_path / "e.npz", name="wide")
    assert (manifest.serve, manifest.metric) == ("int8", "accuracy")
    assert manifest.variants["fp32"].metrics["accuracy"] == 1
    assert manifest.variants["int8"].metrics["accuracy"] > 0.9
    assert manifest.evaluation is not None
    assert manifest.evaluation.examples == 100  # the other half chose the way to 8 bits
    assert "evaluation.npz" in {one.path for one in manifest.files}
    assert np.abs(infer(client, "wide", "output", input=x[:3]) - logits[:3]).max() < 0.1


def test_a_program_of_torch_export(
    publish: Publish, client: triton.InferenceServerClient, mine: ModuleType, tmp_path: Path
) -> None:
    module, inputs = mine.wide()
    program = torch.export.export(module, (inputs,), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, tmp_path / "m.pt2")
    manifest = publish(tmp_path / "m.pt2", name="program")
    x = np.random.default_rng(1).standard_normal((7, 64)).astype(np.float32)
    found = infer(client, "program", "output", **{manifest.inputs[0].name: x})
    np.testing.assert_allclose(found, module(torch.from_numpy(x)).detach().numpy(), atol=1e-5)


def test_a_classifier_of_scikit_learn_takes_its_columns(
    publish: Publish, client: triton.InferenceServerClient, file: Path, mine: ModuleType
) -> None:
    manifest = publish(f"{file}:classes", name="iris")
    assert (manifest.task, manifest.labels) == ("tabular", ("setosa", "versicolor", "virginica"))
    rows = load_iris().data[::10].astype(np.float32)
    columns = {f"x{place}": np.ascontiguousarray(column) for place, column in enumerate(rows.T)}
    found = infer(client, "iris", "probabilities", **columns)
    np.testing.assert_allclose(found, mine.classes().predict_proba(rows), atol=1e-5)


def test_a_regressor_of_scikit_learn(
    publish: Publish, client: triton.InferenceServerClient, file: Path, mine: ModuleType
) -> None:
    publish(f"{file}:numbers", name="ridge")
    rows = np.random.default_rng(2).standard_normal((4, 10)).astype(np.float32)
    found = infer(client, "ridge", "prediction", table=rows)
    np.testing.assert_allclose(found, mine.numbers.predict(rows), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", "raised OSError: no disk."),
        ("number", "gives a int; it must give (torch.nn.Module, example inputs as tensors)"),
        ("nothing", "gives a NoneType; it must give"),
        ("unfitted", "is not fitted; call fit before"),
        ("echo", "has both an input and an answer called 'output'; call one otherwise."),
        ("lost", "The module answers with a tuple of NoneType; it must be of tensors."),
        ("brief", "computes in bfloat16, for which onnxruntime lacks most operators on a CPU; call .float()"),
        ("loose", "a Loose, cannot be copied: Only Tensors created explicitly by the user"),
        ("narrowing", "answers 'output' as torch.bfloat16, which no array holds; give float32, or whole numbers."),
        ("narrow", "does not answer its example inputs, [2, 4]: mat1 and mat2 shapes cannot be multiplied"),
        ("alone", "does not answer its example inputs, [2, 4] and [2, 4]: Echo.forward() takes 2 positional"),
        ("sparse", "as torch.float32 of layout torch.sparse_coo"),
        ("ended", "ended the program by SystemExit(3)."),
        ("scripted", "gives TorchScript, which is not exported; give the module that it is of."),
    ],
)
def test_what_is_no_model_is_refused(refused: Refused, file: Path, name: str, said: str) -> None:
    assert said in refused(f"{file}:{name}")


@pytest.mark.parametrize("name", ["m.pkl", "m.joblib", "m.pt", "m.pth"])
def test_a_pickle_is_never_opened(refused: Refused, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch /tmp/opened'\ntR.")
    said = refused(tmp_path / name)
    assert "may hold a pickle, which runs whatever code its author put into it" in said
    assert "file.py:NAME" in said


def test_what_is_not_there_is_refused(refused: Refused, tmp_path: Path) -> None:
    assert "there is no such file" in refused(tmp_path / "absent.pt2")
    assert "there is no such file" in refused(f"{tmp_path}/absent.py:x")
    assert "There is no module 'absent_module' here" in refused("absent_module:x")
