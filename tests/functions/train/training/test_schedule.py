"""The learning rate's course in closed form."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.train.training.schedule import compute_rate_factor
from pilotlight.recipes.schema import ConstantOptions, CosineOptions, ExponentialOptions, ScheduleOptions, StepOptions


def test_cosine_in_closed_form() -> None:
    options = CosineOptions(name="cosine", warmup=0.2, floor=0.1)
    factors = [compute_rate_factor(options, step, 21) for step in range(21)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0
    assert factors[12] == pytest.approx(0.1 + 0.9 / 2)  # half-way between steps 4 and 20
    assert factors[8] == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert factors[20] == pytest.approx(0.1)


@given(st.integers(1, 500), st.floats(0, 0.99), st.floats(0, 1))
def test_cosine_rises_once_and_falls_to_its_floor(steps: int, warmup: float, floor: float) -> None:
    options = CosineOptions(name="cosine", warmup=warmup, floor=floor)
    factors = [compute_rate_factor(options, step, steps) for step in range(steps)]
    warm = round(warmup * steps)
    assert all(0 <= value <= 1 for value in factors)
    assert factors[:warm] == sorted(factors[:warm])
    assert np.diff(factors[warm:]).max(initial=-1.0) <= 1e-12
    if steps - warm > 1:
        assert factors[-1] == pytest.approx(floor)


def test_schedule_of_one_step() -> None:
    assert compute_rate_factor(CosineOptions(name="cosine"), 0, 1) == 1.0


@given(st.integers(1, 300), st.floats(0, 0.99), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_other_schedules_in_closed_form(steps: int, warmup: float, every: float, last: float) -> None:
    warm, length = round(warmup * steps), max(1, round(every * steps))
    after = [(step - warm, max(1, steps - 1 - warm)) for step in range(warm, steps)]
    closed: dict[ScheduleOptions, list[float]] = {
        ConstantOptions(name="constant", warmup=warmup): [1.0 for _ in after],
        StepOptions(name="step", warmup=warmup, every=every, gamma=last): [last ** (s // length) for s, _ in after],
        ExponentialOptions(name="exponential", warmup=warmup, floor=last): [last ** (s / way) for s, way in after],
    }
    for options, expected in closed.items():
        factors = [compute_rate_factor(options, step, steps) for step in range(steps)]
        assert factors == pytest.approx([(step + 1) / warm for step in range(warm)] + expected)


def test_exponential_falls_by_one_ratio() -> None:
    factors = [compute_rate_factor(ExponentialOptions(name="exponential", floor=1e-3), step, 31) for step in range(31)]
    assert [after / before for before, after in pairwise(factors)] == pytest.approx([1e-3 ** (1 / 30)] * 30)
    assert factors[0] == 1.0
