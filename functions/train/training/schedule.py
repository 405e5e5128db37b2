"""The learning rate's course, as pure functions of the step: nothing to save, nothing to resume.

Each begins with the same linear warm-up: with w = round(warmup * steps), the factor is (step + 1) / w while step < w.
What follows is told by s, the steps since the warm-up, and by t, which goes from 0 at step w to 1 at the last.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from pilotlight.recipes.options.schedule import (
    ConstantOptions,
    CosineOptions,
    ExponentialOptions,
    ScheduleOptions,
    StepOptions,
)


def constant(options: ConstantOptions, since: int, steps: int) -> float:
    """1."""
    return 1.0


def staircase(options: StepOptions, since: int, steps: int) -> float:
    """gamma^floor(s / e) with e = max(1, round(every * steps)): a drop after each share `every` of all steps."""
    drops = since // max(1, round(options.every * steps))
    return float(options.gamma**drops)


def exponential(options: ExponentialOptions, since: int, steps: int) -> float:
    """floor^t: the same ratio between any two neighbouring steps, down to `floor` at the last."""
    return float(options.floor ** progress(options, since, steps))


def cosine(options: CosineOptions, since: int, steps: int) -> float:
    """The curve floor + (1 - floor) (1 + cos(pi t)) / 2. Loshchilov and Hutter, SGDR, 2017, equation 5, one cycle."""
    return options.floor + (1 - options.floor) * (1 + math.cos(math.pi * progress(options, since, steps))) / 2


# Each takes the options of its own word: the recipe has told them apart by it.
SCHEDULES: Mapping[str, Callable[[Any, int, int], float]] = {
    "constant": constant,
    "step": staircase,
    "exponential": exponential,
    "cosine": cosine,
}


def factor(options: ScheduleOptions, step: int, steps: int) -> float:
    """The factor on the learning rate at step 0, 1, ..., steps - 1."""
    warm = warmup(options, steps)
    if step < warm:
        return (step + 1) / warm
    return SCHEDULES[options.name](options, step - warm, steps)


def warmup(options: ScheduleOptions, steps: int) -> int:
    """w: how many steps the warm-up takes."""
    return round(options.warmup * steps)


def progress(options: ScheduleOptions, since: int, steps: int) -> float:
    """t: which share of the way from the end of the warm-up to the last step is gone."""
    return since / max(1, steps - 1 - warmup(options, steps))
