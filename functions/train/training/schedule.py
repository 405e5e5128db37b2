"""The learning rate's schedules, as pure functions of the step: nothing to save, nothing to resume.

Each begins with the same linear warm-up: with w = round(warmup * steps), the factor is (step + 1) / w while step < w.
After it, s counts the steps since the warm-up, and t grows from 0 at step w to 1 at the last.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from pilotlight.recipes.schema import ConstantOptions, CosineOptions, ExponentialOptions, ScheduleOptions, StepOptions


def hold_constant(options: ConstantOptions, steps_since_warmup: int, total_steps: int) -> float:
    """Return 1."""
    return 1.0


def decay_in_steps(options: StepOptions, steps_since_warmup: int, total_steps: int) -> float:
    """Drop by gamma at step round(k * every * steps) after the warm-up, for k = 1, 2, ...: each share of all steps.

    Each position is rounded by itself, halves up, so that trainings of 6 and of 1,000 steps drop equally often.
    """
    drops = math.ceil((steps_since_warmup + 0.5) / (options.every * total_steps)) - 1
    return float(options.gamma**drops)


def decay_exponentially(options: ExponentialOptions, steps_since_warmup: int, total_steps: int) -> float:
    """Decay by floor^t: the same ratio between any two neighbouring steps, down to `floor` at the last."""
    return float(options.floor ** compute_progress(options, steps_since_warmup, total_steps))


def decay_by_cosine(options: CosineOptions, steps_since_warmup: int, total_steps: int) -> float:
    """Decay by floor + (1 - floor) (1 + cos(pi t)) / 2. Loshchilov and Hutter, SGDR, 2017, equation 5, one cycle."""
    return (
        options.floor
        + (1 - options.floor) * (1 + math.cos(math.pi * compute_progress(options, steps_since_warmup, total_steps))) / 2
    )


# Each takes the options of its own name, by which the recipe discriminates them.
SCHEDULES: Mapping[str, Callable[[Any, int, int], float]] = {
    "constant": hold_constant,
    "step": decay_in_steps,
    "exponential": decay_exponentially,
    "cosine": decay_by_cosine,
}


def compute_rate_factor(options: ScheduleOptions, step: int, total_steps: int) -> float:
    """Compute the factor on the learning rate at step 0, 1, ..., steps - 1."""
    warm = count_warmup_steps(options, total_steps)
    if step < warm:
        return (step + 1) / warm
    return SCHEDULES[options.name](options, step - warm, total_steps)


def count_warmup_steps(options: ScheduleOptions, total_steps: int) -> int:
    """Count w: the steps of the warm-up."""
    return round(options.warmup * total_steps)


def compute_progress(options: ScheduleOptions, steps_since_warmup: int, total_steps: int) -> float:
    """Compute t: the share of the steps between the warm-up and the last one that is done."""
    return steps_since_warmup / max(1, total_steps - 1 - count_warmup_steps(options, total_steps))
