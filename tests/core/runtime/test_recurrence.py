"""Rows that are run one after another: each takes what the one before left, within the time."""

import time
from collections.abc import Mapping, Sequence
from math import inf

import numpy as np
import pytest

from pilotlight.errors import TooLargeError
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.model_cache import LoadedModel
from pilotlight.runtime.recurrence import Recurrence, check_time, run_rows, select_first_run
from pilotlight.runtime.request_runner import RequestRunner, Run
from pilotlight.runtime.session import open_session
from tests import fakes

SAMPLES = np.arange(12, dtype=np.float32).reshape(4, 3)
FEEDS = {"samples": SAMPLES, "sum": np.zeros((1, 1), np.float32), "gain": np.array(2)}
RUNNING = Recurrence("samples", {"sum": "next"})


class Doubled:
    """Twice the row, and the number of the call as a scalar; it notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []

    def __call__(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.asked.append(outputs)
        return {"y": feeds["x"] * 2, "call": np.array(len(self.asked))}


def run(outputs: Sequence[str], free: int = 10**9) -> Mapping[str, Array]:
    model = LoadedModel(fakes.stepped(None), open_session(str(fakes.MODELS / "running.onnx")), 1)
    runner = RequestRunner(DeadlineRunner(), fakes.FixedMemory(free))
    return runner.run(Run(model, FEEDS, outputs, 4, 1.0, time.monotonic() + 60, RUNNING))


def test_each_row_takes_what_the_one_before_left() -> None:
    found = run(["total", "next"])
    expected = 2 * SAMPLES.sum(axis=1, keepdims=True).cumsum(axis=0)
    np.testing.assert_array_equal(found["total"], expected)
    np.testing.assert_array_equal(found["next"], expected[-1:])


def test_what_is_carried_is_not_returned_unless_it_is_asked_for() -> None:
    assert list(run(["total"])) == ["total"]


def test_rows_without_a_state_are_joined() -> None:
    doubled = Doubled()
    found = run_rows({"x": SAMPLES}, ["y", "call"], Recurrence("x"), doubled, inf)
    np.testing.assert_array_equal(found["y"], SAMPLES * 2)
    assert found["call"].tolist() == [1, 2, 3, 4]
    assert doubled.asked == [["y", "call"]] * 4


def test_the_first_run_is_one_row() -> None:
    assert {name: array.shape for name, array in select_first_run(FEEDS, RUNNING).items()} == {
        "samples": (1, 3), "sum": (1, 1), "gain": (),
    }  # fmt: skip
    assert select_first_run(FEEDS, None) is FEEDS


def test_rows_that_will_be_late_are_refused_with_how_many_would_not() -> None:
    check_time(10, 100, 1.0, 10.0)
    with pytest.raises(TooLargeError, match=r"100 rows.* about 10,000 ms, and 5,000 ms were left.* enough for 50;"):
        check_time(10, 100, 1.0, 5.0)
    with pytest.raises(TooLargeError, match="enough for 0"):
        run_rows({"x": np.zeros((100, 1))}, ["y"], Recurrence("x"), Doubled(), time.monotonic() - 1)
