"""`pilotlight doctor` for people and for scripts."""

import json
from pathlib import Path

import pytest

from pilotlight.registry.registry import Registry, version_path
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.core.cli.conftest import Run


def test_a_checkout_without_a_store_is_well(run: Run, store: str) -> None:
    code, out, err = run("doctor")
    assert code == 0, out + err
    assert f"There is none at {store} yet" in out
    assert "0 fail" in out
    assert not Path(store).exists()


def test_a_store_is_looked_into(run: Run, store: str) -> None:
    fakes.publish(Registry(open_store(store)))
    code, out, err = run("doctor", "--deep", "--json")
    said = json.loads(out)
    assert (code, said["passed"]) == (0, True), err
    states = {one["check"]: one["state"] for one in said["checks"]}
    assert states["compare-and-swap"] == states["files"] == "passes"
    assert "passes       create-only writes" in err


def test_a_fault_ends_with_one(run: Run, store: str) -> None:
    registry = Registry(open_store(store))
    fakes.publish(registry)
    registry.store.delete(version_path("double", 1, "model.onnx"))
    code, out, _ = run("doctor")
    assert code == 1
    assert "fails        files              1 of 1 files are not as published" in out
    assert "1 fail" in out


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["--url", "somewhere"], 2, "'somewhere' is not a URL"),
        (["--store", "gs://bucket"], 2, "'gs://bucket' is not a store"),
        (["--url", "http://127.0.0.1:9", "--store", "gs://bucket"], 2, "'gs://bucket' is not a store"),
    ],
)
def test_what_is_wrong_is_one_sentence(run: Run, words: list[str], code: int, hint: str) -> None:
    found, _, err = run("doctor", *words)
    assert (found, hint in err) == (code, True), err


def test_nobody_answers(run: Run) -> None:
    code, out, _ = run("doctor", "--url", "http://127.0.0.1:9")
    assert code == 1
    assert "Nothing answers at http://127.0.0.1:9" in out
