"""Every optimiser step by step against its papers' lines in numpy."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from functions.train.data import Array
from functions.train.training import optimiser
from pilotlight.recipes.schema import (
    AdagradOptions,
    AdamOptions,
    AdamwOptions,
    DescentOptions,
    MomentumOptions,
    OptimiserOptions,
    RmspropOptions,
)

STEPS = 25
START = np.array([[1.0, -2.0], [0.5, 3.0]])  # a matrix: a vector would not decay
Course = Iterator[Array]  # the weights after each step
Gradient = Callable[[int, Array], Array]


def given_gradients(decay: float = 0.0) -> Gradient:
    """g at step t, from 0: numbers that do not depend on the weights, so that no rounding is blown up, plus decay."""
    drawn = np.random.default_rng(5).normal(size=(STEPS, *START.shape))
    return lambda t, w: drawn[t] + decay * w


def descent(rate: float, gradient: Gradient) -> Course:
    w = START
    for t in range(STEPS):
        w = w - rate * gradient(t, w)
        yield w


def momentum(rate: float, gradient: Gradient, b: float) -> Course:
    w, v = START, np.zeros_like(START)
    for t in range(STEPS):
        v = b * v + (1 - b) * gradient(t, w)
        w = w - rate * v
        yield w


def adagrad(rate: float, gradient: Gradient) -> Course:
    w, s = START, np.zeros_like(START)
    for t in range(STEPS):
        g = gradient(t, w)
        s = s + g**2
        w = w - rate * g / (np.sqrt(s) + 1e-8)
        yield w


def rmsprop(rate: float, gradient: Gradient, p: float) -> Course:
    w, v = START, np.zeros_like(START)
    for t in range(STEPS):
        g = gradient(t, w)
        v = p * v + (1 - p) * g**2
        w = w - rate * g / (np.sqrt(v) + 1e-8)
        yield w


def adam(rate: float, gradient: Gradient, b1: float, b2: float, decoupled: float = 0.0) -> Course:
    w, m, v = START, np.zeros_like(START), np.zeros_like(START)
    for t in range(STEPS):
        g = gradient(t, w)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        w = w - rate * decoupled * w
        w = w - rate * (m / (1 - b1 ** (t + 1))) / (np.sqrt(v / (1 - b2 ** (t + 1))) + 1e-8)
        yield w


def stepped(options: OptimiserOptions) -> Course:
    """The weights after each step of ours."""
    weight, gradient = torch.nn.Parameter(torch.from_numpy(START.copy())), given_gradients()
    ours = optimiser.build_optimiser(options, [weight])
    for t in range(STEPS):
        weight.grad = torch.from_numpy(gradient(t, START))
        ours.step()
        yield weight.detach().numpy().copy()


def assert_same_course(options: OptimiserOptions, expected: Course) -> None:
    for found, wanted in zip(stepped(options), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


rates = st.floats(1e-4, 0.2)
betas = st.floats(0, 0.999)
decays = st.one_of(st.just(0.0), st.floats(1e-4, 0.3))


@given(rates, betas, betas, decays)
def test_every_optimiser_is_its_closed_form(rate: float, b1: float, b2: float, decay: float) -> None:
    plain, coupled = given_gradients(), given_gradients(decay)
    common: dict[str, Any] = {"learning_rate": rate, "weight_decay": decay}
    assert_same_course(DescentOptions(name="gd", **common), descent(rate, coupled))
    assert_same_course(DescentOptions(name="sgd", **common), descent(rate, coupled))
    assert_same_course(MomentumOptions(name="momentum", beta=b1, **common), momentum(rate, coupled, b1))
    assert_same_course(AdagradOptions(name="adagrad", **common), adagrad(rate, coupled))
    assert_same_course(RmspropOptions(name="rmsprop", rho=b2, **common), rmsprop(rate, coupled, b2))
    assert_same_course(AdamOptions(name="adam", betas=(b1, b2), **common), adam(rate, coupled, b1, b2))
    assert_same_course(AdamwOptions(name="adamw", betas=(b1, b2), **common), adam(rate, plain, b1, b2, decay))


def test_momentum_starts_at_zero_and_so_is_not_torchs() -> None:
    weight, theirs = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    for parameter, stepper in (
        (weight, optimiser.build_optimiser(MomentumOptions(name="momentum", learning_rate=1.0, beta=0.9), [weight])),
        (theirs, torch.optim.SGD([theirs], lr=1.0, momentum=0.9, dampening=0.9)),
    ):
        parameter.grad = torch.ones(1)
        stepper.step()
    assert weight.item() == pytest.approx(0.9)
    assert theirs.item() == pytest.approx(0.0)


def test_biases_and_gains_do_not_decay() -> None:
    matrix, bias = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    ours = optimiser.build_optimiser(DescentOptions(name="sgd", learning_rate=0.5, weight_decay=0.5), [matrix, bias])
    matrix.grad, bias.grad = torch.zeros(2, 2), torch.zeros(2)
    ours.step()
    assert matrix.detach().numpy() == pytest.approx(0.75)
    assert bias.detach().numpy() == pytest.approx(1.0)


def test_parameter_without_gradient_stays() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimiser.build_optimiser(MomentumOptions(name="momentum", learning_rate=1.0), [weight]).step()
    assert weight.item() == 1.0


def test_adam_is_the_papers() -> None:
    b1, b2, rate = 0.8, 0.95, 0.05
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    options = AdamOptions(name="adam", learning_rate=rate, betas=(b1, b2))
    adam = optimiser.build_optimiser(options, [weight])
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
