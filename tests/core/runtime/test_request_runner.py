"""What is run at once, in parts, or not at all, by the memory and the time that are left."""

import time
from collections.abc import Mapping, Sequence
from math import inf

import numpy as np
import pytest
from msgspec.structs import replace

from pilotlight.contracts.manifest import CostPoint, Manifest, RequestCost
from pilotlight.errors import TooLargeError
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.model_cache import LoadedModel
from pilotlight.runtime.request_runner import RequestRunner, Run
from pilotlight.runtime.session import Session, open_session
from tests import fakes

MB = 1_000_000
# A row takes 100 kB and 1 ms.
COST = RequestCost((CostPoint(1, 12, 1.0, 100_000, 12), CostPoint(64, 12, 64.0, 6_400_000, 768)), 100_000, True)


class Watched(DeadlineRunner):
    """Notes the rows of each run, and may fail or take its time."""

    def __init__(self, *, fails: bool = False, seconds_per_row: float = 0.0) -> None:
        super().__init__()
        self.fails, self.seconds_per_row = fails, seconds_per_row
        self.rows: list[int] = []

    def run(
        self, session: Session, feeds: Mapping[str, Array], outputs: Sequence[str], deadline: float = inf
    ) -> dict[str, Array]:
        self.rows.append(len(feeds["x"]))
        if self.fails:
            raise MemoryError
        time.sleep(self.seconds_per_row * len(feeds["x"]))
        return super().run(session, feeds, outputs, deadline)


class Rig:
    def __init__(
        self, free: int = 1000 * MB, cost: RequestCost | None = COST, of: str = "double", watched: Watched | None = None
    ) -> None:
        manifest: Manifest = replace(fakes.stepped(None), request_cost=cost)
        self.model = LoadedModel(manifest, open_session(str(fakes.MODELS / f"{of}.onnx")), 1)
        self.memory, self.watched = fakes.FixedMemory(free), watched or Watched()
        self.runner = RequestRunner(self.watched, self.memory)

    def run(self, rows: int, seconds: float = inf, factor: float = 0.0) -> Array:
        self.x = np.arange(3 * rows, dtype=np.float32).reshape(rows, 3)
        return self.runner.run(Run(self.model, {"x": self.x}, ["y"], rows, factor, time.monotonic() + seconds))["y"]


def test_small_runs_are_run_at_once() -> None:
    rig = Rig(free=0)  # nobody looks
    rig.run(90)
    assert rig.watched.rows == [90]


def test_large_ones_are_run_in_parts_with_the_same_answer() -> None:
    rig = Rig()
    np.testing.assert_array_equal(rig.run(1000), rig.x * 2)
    assert sum(rig.watched.rows) == 1000
    assert len(set(rig.watched.rows[:-1])) == 1
    assert 100 < rig.watched.rows[0] < 320  # 32 MB, with a margin


def test_rows_that_depend_on_each_other_are_not_divided() -> None:
    rig = Rig(cost=replace(COST, rows_independent=False), of="centred")
    np.testing.assert_allclose(rig.run(1000), rig.x - rig.x.mean(axis=0), rtol=1e-4)
    assert rig.watched.rows == [1000]
    rig.memory.free = 100 * MB
    with pytest.raises(TooLargeError, match=r"1,000 rows of double:1 would take about 130 MB.* enough for 76[89]"):
        rig.run(1000)
    assert rig.watched.rows == [1000]


def test_what_does_not_fit_into_memory_is_refused_with_what_would() -> None:
    rig = Rig(free=20 * MB)
    rig.run(1000)  # in smaller parts
    assert max(rig.watched.rows) < 80
    with pytest.raises(TooLargeError, match="20 MB are left, enough for") as caught:
        rig.run(100_000, factor=16.0)
    fitting = int(str(caught.value).split("enough for ")[1].split(".")[0].replace(",", ""))
    assert 10_000 < fitting < 100_000
    rig.run(fitting, factor=16.0)


def test_an_answer_counts_too() -> None:
    rig = Rig(free=40 * MB, cost=replace(COST, points=(CostPoint(1, 12, 0.001, 12, 12),)))
    rig.run(1_000_000)
    with pytest.raises(TooLargeError, match=r"1,000,000 rows .* 208 MB"):
        rig.run(1_000_000, factor=16.0)


def test_what_does_not_end_in_time_is_not_begun() -> None:
    rig = Rig()
    with pytest.raises(
        TooLargeError, match=r"2,000 rows .* and 2,0\d\d ms; 1,000 MB and .* ms are left, enough for [45]\d\d"
    ):
        rig.run(2000, seconds=0.5)
    assert rig.watched.rows == []


def test_one_row_is_tried_however_slow_it_is_said_to_be() -> None:
    rig = Rig(cost=replace(COST, points=(CostPoint(1, 12, 10_000.0, 12, 12),)))
    assert rig.run(1, seconds=1.0).shape == (1, 3)


def test_parts_stop_when_the_time_will_not_suffice() -> None:
    rig = Rig(
        cost=replace(COST, points=(CostPoint(1, 12, 0.001, 1_000_000, 12),)), watched=Watched(seconds_per_row=0.001)
    )
    with pytest.raises(TooLargeError, match=r"1,000 rows of double:1 take about .* ms are left after \d\d of them"):
        rig.run(1000, seconds=0.5)
    assert len(rig.watched.rows) == 2


def test_a_failed_allocation_is_an_error_once() -> None:
    rig = Rig(cost=None, watched=Watched(fails=True), free=100 * MB)
    for _ in range(2):
        with pytest.raises(TooLargeError, match="300,000 rows of double:1 would take about"):
            rig.run(300_000)
    assert len(rig.watched.rows) == 1  # the second one is known not to fit


def test_rows_are_weighed_before_they_are_decoded() -> None:
    rig = Rig()
    rig.runner.check_rows(rig.model.manifest, 10_000, inf)
    rig.runner.check_rows(rig.model.manifest, 64, time.monotonic())  # small enough to be tried
    with pytest.raises(TooLargeError, match=r"10,000 rows of double:1 would take about 10,0\d\d ms; 0 ms are left"):
        rig.runner.check_rows(rig.model.manifest, 10_000, time.monotonic())
