"""From training to a verdict, through the doors that users take: train, serve, ask, `pilotlight drift`, the clock."""

import io
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functions.train.pipeline import run_recipe
from pilotlight.capture import record
from pilotlight.cli import app
from pilotlight.client.client import Client, Tensor
from pilotlight.contracts.processing import TablePreprocessing
from pilotlight.local.gateway import Gateway
from pilotlight.recipes.schema import load_recipe
from pilotlight.registry.registry import Registry, version_path
from pilotlight.storage.object_store import ObjectStore, open_store
from tests.conformance.test_registry import SECRET, lambda_at
from tests.functions.train.conftest import silence

ROOT = Path(__file__).parents[2]
MOVED = ("alcohol", "proline")
Rows = np.ndarray[Any, np.dtype[np.float64]]


class Place:
    """A server over a store with a wine model, which keeps something of every request."""

    def __init__(self, store: ObjectStore, url: str, client: Client) -> None:
        self.store, self.url, self.client = store, url, client
        steps = Registry(store).load_manifest("wine", 1).preprocess
        assert isinstance(steps, TablePreprocessing)
        self.columns = [column.name for column in steps.columns]

    def rows(self, *moved: str) -> Rows:
        """The model's test set, some columns two deviations higher."""
        with np.load(io.BytesIO(self.store.get(version_path("wine", 1, "evaluation.npz")).data)) as held:
            rows: Rows = held["features"].astype(np.float64)
        for name in moved:
            column = self.columns.index(name)
            rows[:, column] += 2 * rows[:, column].std()
        return rows

    def ask(self, rows: Rows) -> None:
        """One request for each row, and no trace of those before."""
        for path in list(self.store.list_paths("captures")):
            self.store.delete(path)
        for row in rows.tolist():
            tensors = [Tensor(name, "FP64", (1,), [value]) for name, value in zip(self.columns, row, strict=True)]
            self.client.infer("wine", tensors)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    store = open_store(str(tmp_path_factory.mktemp("drift") / "store"))
    run_recipe(load_recipe("wine", ["folds=null"]), store, silence())
    variables = {"PILOTLIGHT_STORE": store.url, "PILOTLIGHT_CAPTURE_RATE": "1", "PILOTLIGHT_CAPTURE_SECONDS": "0.1"}
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment=variables, secret=SECRET)
    with gateway.serve_in_background() as url, Client(url) as client:
        yield Place(store, url, client)


Told = dict[str, str]


@pytest.fixture
def told(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:  # noqa: ANN401
    """`pilotlight drift`: the verdict of each feature, when all so many requests are written."""

    def verdicts(count: int) -> Told:
        for _ in range(100):
            monkeypatch.setattr("sys.argv", ["pilotlight", "drift", "wine", "--store", place.store.url, "--json"])
            capsys.readouterr()
            with pytest.raises(SystemExit):
                app()
            found = json.loads(capsys.readouterr().out)
            if found["examples"] == count:
                return {one["name"]: one["verdict"] for one in found["comparisons"]}
            time.sleep(0.1)
        raise AssertionError(found)

    return verdicts


def test_the_test_set_is_no_drift(place: Place, told: Any) -> None:  # noqa: ANN401
    rows = place.rows()
    place.ask(rows)
    assert set(told(len(rows)).values()) == {"stable"}


def test_drift_is_in_the_columns_that_moved_and_the_clock_finds_the_same(place: Place, told: Any) -> None:  # noqa: ANN401
    rows = place.rows(*MOVED)
    place.ask(rows)
    found = told(len(rows))
    assert {name for name in place.columns if found[name] != "stable"} == set(MOVED)
    assert {found[name] for name in MOVED} == {"drifted"}
    yesterday = datetime.now(UTC) - timedelta(hours=20)
    for number, path in enumerate(list(place.store.list_paths("captures"))):
        place.store.put(record.capture_path("wine", 1, yesterday, "moved", number), place.store.get(path).data)
        place.store.delete(path)
    answer = lambda_at(place.url).invoke(FunctionName="DriftFunction", Payload=b'{"detail-type": "Scheduled Event"}')
    (said,) = json.load(answer["Payload"])["done"]
    assert said.startswith("wine:1, 36 examples of 36 requests: drifted: alcohol, proline")
    assert len(list(place.store.list_paths("drift/wine/1"))) == 1
