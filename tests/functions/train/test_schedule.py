"""The learning rate's course in closed form, and the optimiser against the paper's own lines."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from functions.train import optimiser
from functions.train.recipe import AdamOptions, CosineOptions
from functions.train.schedule import factor


def test_cosine_in_closed_form() -> None:
    options = CosineOptions(name="cosine", warmup=0.2, floor=0.1)
    factors = [factor(options, step, 21) for step in range(21)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0
    assert factors[12] == pytest.approx(0.1 + 0.9 / 2)  # half-way between steps 4 and 20
    assert factors[8] == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert factors[20] == pytest.approx(0.1)


@given(st.integers(1, 500), st.floats(0, 0.99), st.floats(0, 1))
def test_cosine_rises_once_and_falls_to_its_floor(steps: int, warmup: float, floor: float) -> None:
    options = CosineOptions(name="cosine", warmup=warmup, floor=floor)
    factors = [factor(options, step, steps) for step in range(steps)]
    warm = round(warmup * steps)
    assert all(0 <= value <= 1 for value in factors)
    assert factors[:warm] == sorted(factors[:warm])
    assert np.diff(factors[warm:]).max(initial=-1.0) <= 1e-12
    if steps - warm > 1:
        assert factors[-1] == pytest.approx(floor)


def test_schedule_of_one_step() -> None:
    assert factor(CosineOptions(name="cosine"), 0, 1) == 1.0


def test_adam_is_the_papers() -> None:
    b1, b2, rate = 0.8, 0.95, 0.05
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    options = AdamOptions(name="adam", learning_rate=rate, betas=(b1, b2))
    adam = optimiser.build(options, [weight])
    w = np.array([1.0, -2.0])
    m, v = np.zeros(2), np.zeros(2)
    for step in range(1, 6):
        adam.zero_grad()
        (weight**4).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves backward unannotated
        adam.step()
        gradient = 4 * w**3
        m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient**2
        w = w - rate * (m / (1 - b1**step)) / (np.sqrt(v / (1 - b2**step)) + 1e-8)
        assert weight.detach().numpy() == pytest.approx(w, abs=1e-12)
