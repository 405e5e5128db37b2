"""The job's command line: a wrong recipe ends it at once, and each word of a recipe has something that it names."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from functions.train.__main__ import main
from functions.train.data.builtin import BUILTIN_DATASETS
from functions.train.export import quantize
from functions.train.models import build
from functions.train.training import loss, optimiser, schedule
from pilotlight.recipes import errors
from pilotlight.recipes.schema import LossOptions, OptimiserOptions, ScheduleOptions, load_recipe

ROOT = Path(__file__).parents[3]


def test_mistake_ends_the_command_with_two_before_torch_is_imported() -> None:
    program = (
        "import sys\n"
        "from functions.train.__main__ import main\n"
        "code = main(['digits', '--set', 'optimiser.learning_rate=-1', '--store', 'memory://'])\n"
        "sys.exit(code if 'torch' not in sys.modules else 99)"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "layers/core")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "digits: optimiser.learning_rate is -1; it must be greater than 0.\n"


@pytest.mark.parametrize("arguments", [["digits", "--store", "ftp://x"], ["digits", "--set", "x=1"], ["nothing"]])
def test_command_says_a_mistake_on_stderr(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.endswith(".\n")


def known_words(options: object) -> set[str]:
    """The words of a union in the recipe."""
    return {word for one in errors.list_member_models(get_args(options)[0]) for word in errors.get_union_words(one)}


def test_every_word_of_a_recipe_is_in_its_registry() -> None:
    digits = load_recipe("digits")
    assert digits.data.name in BUILTIN_DATASETS
    assert digits.model.architecture in build.ARCHITECTURES
    assert digits.optimiser.name in optimiser.OPTIMISERS
    assert digits.schedule.name in schedule.SCHEDULES
    assert set(optimiser.OPTIMISERS) == known_words(OptimiserOptions)
    assert set(loss.LOSSES) == known_words(LossOptions)
    assert set(schedule.SCHEDULES) == known_words(ScheduleOptions)
    assert digits.quantization.scheme in quantize.SCHEMES
