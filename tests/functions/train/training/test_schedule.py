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
    warm, share = round(warmup * steps), every * steps
    after = [(step - warm, max(1, steps - 1 - warm)) for step in range(warm, steps)]
    closed: dict[ScheduleOptions, list[float]] = {
        ConstantOptions(name="constant", warmup=warmup): [1.0 for _ in after],
        StepOptions(name="step", warmup=warmup, every=every, gamma=last): [
            last ** sum(share * k < s + 0.5 for k in range(1, math.ceil(1 / every) + 1)) for s, _ in after
        ],
        ExponentialOptions(name="exponential", warmup=warmup, floor=last): [last ** (s / way) for s, way in after],
    }
    for options, expected in closed.items():
        factors = [compute_rate_factor(options, step, steps) for step in range(steps)]
        assert factors == pytest.approx([(step + 1) / warm for step in range(warm)] + expected)


@pytest.mark.parametrize(
    ("every", "drops"), [(0.25, 3), (0.1, 9), (0.3, 3), (0.4, 2), (0.5, 1), (0.33, 3), (0.9, 1), (0.999, 1)]
)
def test_number_of_drops_is_that_of_the_share_whatever_the_steps(every: float, drops: int) -> None:
    options = StepOptions(name="step", every=every, gamma=0.5)
    for steps in [*range(math.ceil(1 / every) * 2, 200), 1000, 4321]:
        factors = [compute_rate_factor(options, step, steps) for step in range(steps)]
        last = drops if every * drops < 1 - 0.5 / steps else drops - 1  # a drop within the last half step has no step
        assert round(-math.log2(factors[-1])) == last
        assert len(set(factors)) == last + 1
        assert factors == sorted(factors, reverse=True)
        for number in range(1, last + 1):  # each at its own place, within half a step
            first = factors.index(0.5**number)
            assert abs(first - number * every * steps) <= 0.5 + 1e-9


def test_a_quarter_drops_three_times_over_6_10_and_18_steps() -> None:
    options = StepOptions(name="step", every=0.25, gamma=0.1)
    for steps in (3, 4, 5, 6, 10, 18, 1001):
        assert compute_rate_factor(options, steps - 1, steps) == pytest.approx(0.1**3)


@given(st.integers(2, 400), st.floats(0, 0.99))
def test_warm_up_is_its_share_within_half_a_step_and_ends_at_the_whole_rate(steps: int, warmup: float) -> None:
    for options in (ConstantOptions(name="constant", warmup=warmup), CosineOptions(name="cosine", warmup=warmup)):
        factors = [compute_rate_factor(options, step, steps) for step in range(steps)]
        whole = next(step for step, factor in enumerate(factors) if factor == 1.0)
        assert abs(max(whole + 1, 1) - max(1, warmup * steps)) <= 0.5 + 1e-9 or whole == 0
    assert compute_rate_factor(ExponentialOptions(name="exponential", warmup=warmup, floor=0.01), steps - 1, steps) <= 1


def test_exponential_falls_by_one_ratio() -> None:
    factors = [compute_rate_factor(ExponentialOptions(name="exponential", floor=1e-3), step, 31) for step in range(31)]
    assert [after / before for before, after in pairwise(factors)] == pytest.approx([1e-3 ** (1 / 30)] * 30)
    assert factors[0] == 1.0
