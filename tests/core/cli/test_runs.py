"""Runs are listed, shown and compared from what they left in the store alone."""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import yaml

from pilotlight.cli.plot import HEIGHT, WIDTH, plot_curves
from pilotlight.contracts.codec import encode_document
from pilotlight.contracts.manifest import Variant
from pilotlight.contracts.run import EpochRecord, RunStatus
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.core.cli.conftest import Run

NOW = datetime.now(UTC)


def recipe(optimiser: dict[str, Any], **others: Any) -> dict[str, Any]:  # noqa: ANN401 - any recipe
    return {"name": "double", "epochs": 4, "early_stopping": {"min_delta": 0.0}, "optimiser": optimiser} | others


ADAM = recipe({"name": "adam", "learning_rate": 0.01, "betas": [0.9, 0.999]})
SGD = recipe({"name": "sgd", "learning_rate": 0.1})


def put(store: str, run: str, settings: dict[str, Any], losses: list[float | None], **status: Any) -> None:  # noqa: ANN401
    """A run's folder."""
    at = status.pop("at", datetime.now(UTC)).isoformat()
    told = RunStatus(**{"state": "finished", "started": at, "at": at, "seconds": 7.0} | status)
    lines = [
        EpochRecord(
            number=number, train_loss=loss, validation_loss=loss, validation_accuracy=0.9, at=at, remaining_s=60.0
        )
        for number, loss in enumerate(losses, 1)
    ]
    folder = open_store(store)
    folder.put(f"runs/{run}/recipe.yaml", yaml.safe_dump(settings, sort_keys=False).encode())
    folder.put(f"runs/{run}/status.json", encode_document(told))
    folder.put(f"runs/{run}/metrics.jsonl", b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


@pytest.fixture
def two(store: str) -> str:
    """A store with a finished run that published, and one that diverged."""
    put(store, "first", ADAM, [2.0, 1.0, 0.5, 0.75], at=NOW - timedelta(hours=1))
    put(store, "second", SGD, [3.0, None], state="failed", reason="Training diverged in epoch 2: try less.")
    registry = Registry(open_store(store))
    draft = msgspec.structs.replace(fakes.draft(), variants={"fp32": Variant("model.onnx", {"accuracy": 0.875})})
    registry.publish_version(draft, {"model.onnx": fakes.graph("double")})
    registry.store.put("runs/first/published.json", b'{"reference": "double:1"}')
    registry.store.put("runs/first/curves.png", b"")
    return store


def test_an_empty_store_says_how_to_fill_it(run: Run, store: str) -> None:
    said = f"No runs in {store} yet; `pilotlight train digits` makes one.\n"
    assert run("runs")[:2] == run("runs", "list")[:2] == (0, said)
    assert run("runs", "--json")[:2] == (0, "[]\n")


def test_list_has_the_newest_first_and_says_what_changed(run: Run, two: str) -> None:
    code, out, _ = run("runs")
    assert code == 0
    rows = [line for line in out.splitlines() if "│" in line]
    assert [row.split()[1] for row in rows] == ["second", "first"]
    for word in ("failed", "2/4", "sgd, learning_rate 0.1"):
        assert word in rows[0]
    for word in ("finished", "4/4", "accuracy 90.00%, loss 0.5000 in epoch 3", "double:1", "7 s"):
        assert word in rows[1]
    second, first = json.loads(run("runs", "list", "--store", two, "--json")[1])
    assert (first["state"], first["version"]) == ("finished", "double:1")
    assert (first["best"]["number"], first["changes"]) == (3, {})
    assert second["reason"] == "Training diverged in epoch 2: try less."
    assert second["changes"] == {"optimiser.name": "sgd", "optimiser.learning_rate": 0.1, "optimiser.betas": None}


def test_a_setting_that_is_no_part_is_told_with_its_name(run: Run, store: str) -> None:
    put(store, "first", ADAM, [1.0], at=NOW - timedelta(hours=1))
    put(store, "second", ADAM | {"epochs": 7}, [1.0])
    assert "│ epochs 7 " in run("runs")[1]


@pytest.mark.parametrize(
    ("state", "hours", "said"),
    [
        ("running", 0, "running "),
        ("running", 3, "running, silent for 3 h 0"),
        ("paused", 0, "paused (75)"),
        ("interrupted", 0, "interrupted"),
    ],
)
def test_state_is_told_and_so_is_silence(run: Run, store: str, state: str, hours: int, said: str) -> None:
    put(store, "r", ADAM, [1.0], state=state, at=datetime.now(UTC) - timedelta(hours=hours))
    assert said in run("runs")[1]


def test_show_draws_the_curve_and_names_the_pictures(run: Run, two: str) -> None:
    code, out, _ = run("runs", "show", "first")
    assert code == 0
    for words in ("first  finished", "4 of 4 epochs in 7 s", "published double:1: accuracy 87.50%", "^ kept"):
        assert words in out
    assert out.splitlines()[-1] == f"{two}/runs/first/curves.png"
    assert out.count("*") == 4 + 1  # the epochs, and the legend
    said = json.loads(run("runs", "show", "first", "--json")[1])
    assert [line["validation_loss"] for line in said["metrics"]] == [2.0, 1.0, 0.5, 0.75]
    assert (said["test"], said["pictures"]) == ({"accuracy": 0.875}, [f"{two}/runs/first/curves.png"])


def test_show_says_why_a_run_failed_and_how_long_one_will_take(run: Run, two: str) -> None:
    assert "Training diverged in epoch 2: try less." in run("runs", "show", "second")[1]
    put(two, "third", ADAM, [1.0], state="running")
    assert "at most 1 min 00 s left" in run("runs", "show", "third")[1]
    put(two, "fourth", ADAM, [], state="running")
    assert "no epoch yet" in run("runs", "show", "fourth")[1]


def test_compare_sets_recipes_and_results_side_by_side(run: Run, two: str) -> None:
    code, out, _ = run("runs", "compare", "first", "second")
    assert code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    cells = {row[0]: row[1:] for row in rows}
    assert cells["optimiser.name"] == ["adam", "sgd"]
    assert cells["optimiser.betas"] == ["[0.9, 0.999]", ""]
    assert cells["final validation loss"] == ["0.7500", "not finite"]
    assert cells["served, on the test set"] == ["accuracy 87.50%", ""]
    assert "epochs" not in cells  # alike in both
    said = json.loads(run("runs", "compare", "s*", "f*", "--json")[1])
    assert said["differing"] == ["optimiser.name", "optimiser.learning_rate", "optimiser.betas"]
    assert [(one["run"], one["validation_loss"]) for one in said["runs"]] == [("second", None), ("first", 0.75)]


def test_many_runs_are_compared_below_each_other(run: Run, two: str) -> None:
    for number in range(3):
        put(two, f"many-{number}", recipe(ADAM["optimiser"], seed=number), [1.0 / (number + 1)])
    _, out, _ = run("runs", "compare", "many-*", "first")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert [row[0] for row in rows] == ["many-0", "many-1", "many-2", "first"]
    assert [row[2] for row in rows] == ["0", "1", "2", ""]  # the seed, which the first has none of


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["show", "nothing"], 1, "There is no run 'nothing'"),
        (["compare", "first", "none*"], 1, "There is no run 'none*'"),
        (["compare", "first"], 2, "first names one run; give two or more"),
        (["--store", "x", "show", "first"], 2, "Write the options after 'show'"),
        (["paint"], 2, "paint"),
    ],
)
def test_what_is_wrong_is_one_sentence(run: Run, two: str, words: list[str], code: int, hint: str) -> None:
    found, out, err = run("runs", *words)
    assert (found, out) == (code, "")
    assert hint in err
    assert "Traceback" not in err


@pytest.mark.parametrize("verb", ["list", "show", "compare"])
def test_every_verb_speaks_json(run: Run, verb: str) -> None:
    code, out, _ = run("runs", verb, "--help")
    assert (code, "--json" in out, "--store" in out) == (0, True, True)


@pytest.mark.parametrize(
    "losses",
    [[1.0], [0.0, 0.0], [-1.0, 1.0], [1e-9, 1e9], [1.0, None, 2.0], [math.exp(-number / 50) for number in range(1000)]],
)
def test_plot_fits_whatever_is_drawn(losses: list[float | None]) -> None:
    lines = plot_curves({"a": losses, "b": losses[::-1]}, best_epoch=len(losses))
    assert len(lines) == HEIGHT + 2
    assert max(map(len, lines[:-1])) <= WIDTH + 11
    assert sum(line.count("*") for line in lines[:HEIGHT]) == min(WIDTH, sum(loss is not None for loss in losses))
    assert lines[-2].endswith("^")


def test_plot_of_nothing_finite() -> None:
    assert plot_curves({"a": [None]}) == ["no epoch yet"]
