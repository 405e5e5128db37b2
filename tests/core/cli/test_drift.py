"""`pilotlight drift`: verdicts in words, pictures in the terminal and in a file."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.functions.drift.test_nightly_report import capture, publish

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def registry(store: str) -> Registry:
    made = Registry(open_store(store))
    publish(made)
    return made


def test_no_drift_is_said(run: Run, registry: Registry) -> None:
    capture(registry.store, datetime.now(UTC), 200)
    code, said, _ = run("drift", "double")
    assert code == 0
    assert said.startswith("double:1, 200 examples of 200 requests: no drift.")
    assert said.count("training │") == 3


def test_what_drifted_is_named_and_drawn_first(run: Run, registry: Registry) -> None:
    capture(registry.store, datetime.now(UTC), 200, shift=2)
    code, said, _ = run("drift", "double:1")
    assert code == 0
    assert "drifted: x[1], y[1]." in said
    pictures = said.split("training saw.")[1]
    assert pictures.index("drifted, PSI") < pictures.index("stable, PSI")
    assert run("drift", "double", "--all")[1].count("training │") == 6


def test_days_say_how_far_back(run: Run, registry: Registry) -> None:
    capture(registry.store, datetime.now(UTC) - timedelta(days=3), 200)
    assert "200 examples" in run("drift", "double", "--days", "4")[1]
    assert "0 examples" in run("drift", "double", "--days", "2")[1]


def test_json_holds_every_number(run: Run, registry: Registry) -> None:
    capture(registry.store, datetime.now(UTC), 200, shift=2)
    found = json.loads(run("drift", "double", "--json")[1])
    words = {one["name"]: one["verdict"] for one in found["comparisons"]}
    assert words == {"x[0]": "stable", "x[1]": "drifted", "x[2]": "stable",
                     "y[0]": "stable", "y[1]": "drifted", "y[2]": "stable"}  # fmt: skip
    one = next(one for one in found["comparisons"] if one["name"] == "x[1]")
    assert one["psi"] > 0.25
    assert one["p"] < 0.01
    assert np.isclose(sum(group["now"] for group in one["groups"]), 1, atol=1e-3)


def test_a_picture_is_a_png(run: Run, registry: Registry, tmp_path: Path) -> None:
    capture(registry.store, datetime.now(UTC), 200)
    target = tmp_path / "drift.png"
    assert run("drift", "double", "--picture", str(target))[0] == 0
    assert target.read_bytes().startswith(b"\x89PNG")
    code, _, said = run("drift", "double", "--picture", str(tmp_path / "no" / "drift.png"))
    assert code == 2
    assert "Cannot write" in said


def test_without_captures_it_says_how_to_keep_some(run: Run, registry: Registry) -> None:
    code, said, _ = run("drift", "double")
    assert code == 0
    assert "CaptureRate" in said


def test_what_cannot_be_compared_is_said_in_a_sentence(run: Run, registry: Registry) -> None:
    fakes.publish(registry, "old")
    code, _, said = run("drift", "old")
    assert code == 1
    assert said.startswith("old:1 has no profile of its training set to compare with")
    assert run("drift", "nobody")[0] == 1
    assert run("drift", "double", "--days", "0")[0] == 2
