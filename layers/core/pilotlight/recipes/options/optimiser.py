"""Which optimiser takes the steps."""

from typing import Annotated, Literal

from pydantic import Field

from pilotlight.recipes.options.part import BelowOne, NotNegative, Options, Positive


class BaseOptimiserOptions(Options):
    """What every optimiser is told, but for `weight_decay`, which each declares behind its own words.

    That is the order in which recipes are kept, and by which a run that goes on knows its own. Of which kind the decay
    is, functions/train/training/optimiser.py says.
    """

    name: str
    learning_rate: Positive


class DescentOptions(BaseOptimiserOptions):
    """Plain gradient steps: `gd` on the whole training set at once, `sgd` on batches."""

    name: Literal["gd", "sgd"]
    weight_decay: NotNegative = 0.0


class MomentumOptions(BaseOptimiserOptions):
    """Steps along an average of gradients that starts at zero."""

    name: Literal["momentum"]
    beta: BelowOne = 0.9
    weight_decay: NotNegative = 0.0


class AdagradOptions(BaseOptimiserOptions):
    """Steps divided by the root of the sum of all squared gradients."""

    name: Literal["adagrad"]
    weight_decay: NotNegative = 0.0


class RmspropOptions(BaseOptimiserOptions):
    """Steps divided by the root of an average of squared gradients, with the lecture's default."""

    name: Literal["rmsprop"]
    rho: BelowOne = 0.9
    weight_decay: NotNegative = 0.0


class AdamOptions(BaseOptimiserOptions):
    """Adam, with the paper's defaults."""

    name: Literal["adam"]
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    weight_decay: NotNegative = 0.0


class AdamwOptions(BaseOptimiserOptions):
    """Adam with decoupled weight decay, with torch's defaults."""

    name: Literal["adamw"]
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    weight_decay: NotNegative = 0.01


OptimiserOptions = Annotated[
    DescentOptions | MomentumOptions | AdagradOptions | RmspropOptions | AdamOptions | AdamwOptions,
    Field(discriminator="name"),
]
