"""torch.compile: the same weights where it works, and one sentence before or at the first step where it does not."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from functions.train.data.split import Splits
from functions.train.models.build import build_model
from functions.train.training.compiler import compile_function, refuse_without_compiler
from functions.train.training.trainer import seed_torch, train_model
from pilotlight.errors import InvalidInputError, UnavailableError
from pilotlight.recipes.schema import Recipe
from tests.functions.train.conftest import tiny_recipe

ROOT = Path(__file__).parents[4]
SMALL = ("model={architecture: mlp, hidden: [16]}", "epochs=1")
real = torch.compile


def losses(recipe: Recipe, splits: Splits) -> tuple[float, float]:
    with seed_torch(recipe.seed):
        network = build_model(recipe.model, splits.train)
    (epoch,) = train_model(network, splits, recipe, lambda _: None).epochs
    return epoch.train_loss, epoch.validation_loss


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_training_is_the_plain_one(backend: str, splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(real, backend=backend))  # the compiler's own backend takes minutes
    torch._dynamo.reset()
    assert losses(tiny_recipe(*SMALL, "compile=true"), splits) == losses(tiny_recipe(*SMALL), splits)


def broken(graph: Any, examples: Any) -> Callable[..., Any]:  # noqa: ANN401 - torch's own
    raise FileNotFoundError("no compiler")


def test_a_compiler_that_fails_is_one_sentence(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(real, backend=broken))
    torch._dynamo.reset()
    with pytest.raises(UnavailableError, match=r"^torch\.compile failed: .*no compiler.* Set compile=false"):
        losses(tiny_recipe(*SMALL, "compile=true"), splits)


def test_what_the_model_raises_itself_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(torch, "compile", lambda function, *, dynamic: function)
    with pytest.raises(RuntimeError, match="shapes differ"):
        compile_function(fails)()


@pytest.mark.parametrize(
    ("gpus", "words"), [(0, "a C++ compiler here, g++, and"), (1, "a C compiler here, gcc or clang")]
)
def test_no_compiler_is_said_before_training(gpus: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="set compile=false") as caught:
        refuse_without_compiler(gpus, {"PATH": str(tmp_path)})
    assert words in str(caught.value)


@pytest.mark.parametrize(("gpus", "variable"), [(0, "CXX"), (1, "CC")])
def test_a_compiler_is_found_by_its_variable(gpus: int, variable: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("#!/bin/sh\n")
    (tmp_path / "mine").chmod(0o755)
    refuse_without_compiler(gpus, {"PATH": str(tmp_path), variable: "mine"})
    with pytest.raises(InvalidInputError, match="other"):
        refuse_without_compiler(gpus, {"PATH": str(tmp_path), variable: "other"})


def test_the_command_ends_with_two(tmp_path: Path) -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "layers/core")])
    environment = {**os.environ, "PYTHONPATH": path, "CXX": "no-such-compiler"}
    command = [sys.executable, "-m", "functions.train", "digits", "--set", "compile=true", "--store", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "compile: true needs a C++ compiler here, no-such-compiler, and there is none on the PATH; install one, name "
        "it by CXX, or set compile=false.\n"
    )
