"""How the learning rate changes over the steps."""

from typing import Annotated, Literal

from pydantic import Field

from pilotlight.recipes.options.part import BelowOne, Options, Share


class Warming(Options):
    """What every schedule is told: the learning rate rises linearly over the first share of all steps."""

    name: str
    warmup: BelowOne = 0.0


class ConstantOptions(Warming):
    """The learning rate as it is."""

    name: Literal["constant"]


class StepOptions(Warming):
    """The learning rate times `gamma` after each share `every` of all steps."""

    name: Literal["step"]
    every: Share
    gamma: Share


class ExponentialOptions(Warming):
    """By the same ratio at every step, down to `floor` times the learning rate."""

    name: Literal["exponential"]
    floor: Annotated[float, Field(gt=0, le=1)]


class CosineOptions(Warming):
    """Half a cosine down to `floor` times the learning rate."""

    name: Literal["cosine"]
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0


ScheduleOptions = Annotated[
    ConstantOptions | StepOptions | ExponentialOptions | CosineOptions, Field(discriminator="name")
]
