"""From training to a verdict, through the doors that users take: train, serve, ask, `pilotlight drift`."""

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from functions.train.recipe import load
from functions.train.run import run
from pilotlight.cli import app
from pilotlight.client import Client, Tensor
from pilotlight.local.gateway import Gateway
from pilotlight.registry import Registry, version_path
from pilotlight.steps import Table
from pilotlight.storage import ObjectStore, open_store
from tests.functions.train.conftest import silence

ROOT = Path(__file__).parents[2]
MOVED = ("alcohol", "proline")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    """A store with a wine model that was trained for it."""
    found = open_store(str(tmp_path_factory.mktemp("drift") / "store"))
    run(load("wine", ["folds=null"]), found, silence())
    return found


@pytest.fixture(scope="module")
def client(store: ObjectStore) -> Iterator[Client]:
    """A client of a server that keeps something of every request."""
    variables = {
        "PILOTLIGHT_STORE": store.url,
        "PILOTLIGHT_CAPTURE_RATE": "1",
        "PILOTLIGHT_CAPTURE_SECONDS": "0.1",
    }
    with (
        Gateway(ROOT / "template.yaml", port=0, workers=1, environment=variables).background() as url,
        Client(url) as it,
    ):
        yield it


def columns(store: ObjectStore) -> list[str]:
    """The names of the columns that the model takes."""
    steps = Registry(store).manifest("wine", 1).prepare
    assert isinstance(steps, Table)
    return [column.name for column in steps.columns]


def verdicts(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    monkeypatch.setattr("sys.argv", ["pilotlight", "drift", "wine", "--store", store.url, "--json"])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        app()
    found = json.loads(capsys.readouterr().out)
    return {one["name"]: one["verdict"] for one in found["comparisons"]} | {"examples": str(found["examples"])}


def test_the_test_set_is_no_drift_and_a_moved_one_is_in_the_columns_that_moved(
    store: ObjectStore, client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = columns(store)
    rows = np.load(io.BytesIO(store.get(version_path("wine", 1, "evaluation.npz")).data))["features"].astype(np.float64)
    moved = rows.copy()
    for name in MOVED:
        moved[:, names.index(name)] += 2 * rows[:, names.index(name)].std()

    def asked(table: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> dict[str, str]:
        for path in list(store.paths("captures")):
            store.delete(path)
        for row in table:
            client.infer(
                "wine", [Tensor(name, "FP64", (1,), [value]) for name, value in zip(names, row.tolist(), strict=True)]
            )
        for _ in range(100):
            if (found := verdicts(store, monkeypatch, capsys))["examples"] == str(len(table)):
                return found
            time.sleep(0.1)
        raise AssertionError(found)

    same = asked(rows)
    assert {name for name, word in same.items() if word in ("drifted", "changed")} == set()
    drifted = {name for name, word in asked(moved).items() if word == "drifted"}
    assert drifted & set(names) == set(MOVED)
