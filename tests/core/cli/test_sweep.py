"""`pilotlight sweep`: every combination is trained under a name that tells it, and the runs are compared."""

import json

import pytest

from pilotlight.cli import subprocesses
from pilotlight.cli.sweep import build_run_names, format_name_part, parse_axis
from tests.core.cli.conftest import Run

QUICK = ("--set", "name=swept", "--set", "folds=null", "--set", "epochs=1")


@pytest.mark.slow
def test_every_combination_is_trained_and_compared(run: Run) -> None:
    axes = ("optimiser.learning_rate=[0.1, 0.01]",)
    code, out, err = run("sweep", "wine", *axes, *QUICK, "--json")
    assert code == 0, err
    said = json.loads(out)
    assert [one["run"] for one in said["runs"]] == ["sweep-0.1", "sweep-0.01"]
    assert said["differing"] == ["optimiser.learning_rate"]
    assert {one["state"] for one in said["runs"]} == {"finished"}
    assert "2 of 2: sweep-0.01" in err


def test_a_wrong_recipe_ends_it_at_once(run: Run) -> None:
    code, out, err = run("sweep", "wine", "optimiser.name=[adma, adam]", *QUICK)
    assert (code, out) == (2, "")
    assert "adma" in err
    assert "2 of 2" not in err


def test_a_run_that_publishes_nothing_does_not_end_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[list[str]] = []

    def fails(command: list[str], environment: dict[str, str], *, quiet: bool) -> int:
        ended.append(command)
        return 1

    monkeypatch.setattr(subprocesses, "run_command", fails)
    code, _, err = run("sweep", "wine", "seed=[1, 2]", "--run", "mine")
    assert [words[-1] for words in ended] == ["mine-1", "mine-2"]
    assert "--set" in ended[0]
    assert "seed=1" in ended[0]
    assert (code, "There is no run 'mine-1'" in err) == (1, True)


@pytest.mark.parametrize("word", ["seed", "seed=", "seed=[1]", "=[1, 2]", "seed=3", "seed=[1, 2"])
def test_what_is_no_axis(run: Run, word: str) -> None:
    code, out, err = run("sweep", "wine", word)
    assert (code, out) == (2, "")
    assert f"{word!r} is not KEY=[A, B, ...]" in err


def test_names_tell_what_is_set() -> None:
    schedules = parse_axis("schedule=[{name: step, every: 0.3}, {name: cosine}]")
    pairs = [(a, b) for a in parse_axis("optimiser.name=[gd, adam]") for b in schedules]
    assert build_run_names("s", pairs) == ["s-gd-step", "s-gd-cosine", "s-adam-step", "s-adam-cosine"]
    assert build_run_names(
        "s", [(one,) for one in parse_axis("schedule=[{name: step, every: 0.3}, {name: step, every: 0.5}]")]
    ) == [
        "s-1",
        "s-2",
    ]
    assert (
        format_name_part({"train": 0.5, "test": 0.5}),
        format_name_part([8, 16]),
        format_name_part("a/b"),
        format_name_part(""),
    ) == (
        "0.5-0.5",
        "8-16",
        "a-b",
        "none",
    )
