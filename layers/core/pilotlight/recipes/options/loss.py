"""What is made small."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from pilotlight.recipes.options.part import BelowOne, Options, Positive, get_union_tag

ClassWeights = Annotated[
    Annotated[tuple[Positive, ...], Tag("value")] | Annotated[Literal["balanced"], Tag("word")],
    Discriminator(get_union_tag),
]


class CrossEntropyOptions(Options):
    """For classes. `balanced` weighs each class as if all were equally frequent; a list has one weight per class."""

    name: Literal["cross_entropy"]
    label_smoothing: BelowOne = 0.0
    class_weights: ClassWeights | None = None


class MseOptions(Options):
    """The mean squared error, for numbers."""

    name: Literal["mse"]


LossOptions = Annotated[CrossEntropyOptions | MseOptions, Field(discriminator="name")]
