"""The learning rate's course, as pure functions of the step: nothing to save, nothing to resume."""

import math
from collections.abc import Callable, Mapping

from functions.train.recipe import CosineOptions


def cosine(options: CosineOptions, step: int, steps: int) -> float:
    """The factor on the learning rate at step 0, 1, ..., steps - 1.

    With w = round(warmup * steps): (step + 1) / w while step < w, then floor + (1 - floor) (1 + cos(pi t)) / 2,
    where t goes from 0 at step w to 1 at the last. Loshchilov and Hutter, SGDR, 2017, equation 5, one cycle.
    """
    warm = round(options.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    progress = (step - warm) / max(1, steps - 1 - warm)
    return options.floor + (1 - options.floor) * (1 + math.cos(math.pi * progress)) / 2


SCHEDULES: Mapping[str, Callable[[CosineOptions, int, int], float]] = {"cosine": cosine}


def factor(options: CosineOptions, step: int, steps: int) -> float:
    """The factor of a recipe's schedule at a step."""
    return SCHEDULES[options.name](options, step, steps)
