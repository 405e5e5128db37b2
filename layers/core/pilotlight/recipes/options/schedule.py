"""How the learning rate changes over the steps."""

from typing import Annotated, Literal

from pydantic import Field

from pilotlight.recipes.options.part import BelowOne, Options, Proportion


class BaseScheduleOptions(Options):
    """What every schedule is told: the learning rate rises linearly over the first share of all steps."""

    name: str
    warmup: BelowOne = 0.0


class ConstantOptions(BaseScheduleOptions):
    """The learning rate as it is."""

    name: Literal["constant"]


class StepOptions(BaseScheduleOptions):
    """The learning rate times `gamma` after each share `every` of all steps."""

    name: Literal["step"]
    every: Proportion
    gamma: Proportion


class ExponentialOptions(BaseScheduleOptions):
    """By the same ratio at every step, down to `floor` times the learning rate."""

    name: Literal["exponential"]
    floor: Annotated[float, Field(gt=0, le=1)]


class CosineOptions(BaseScheduleOptions):
    """Half a cosine down to `floor` times the learning rate."""

    name: Literal["cosine"]
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0


ScheduleOptions = Annotated[
    ConstantOptions | StepOptions | ExponentialOptions | CosineOptions, Field(discriminator="name")
]
