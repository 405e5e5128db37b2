"""What the parts of a recipe have in common: strict, frozen, every key known; and the kinds of numbers they take."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Proportion = Annotated[float, Field(gt=0, lt=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Layers = Annotated[int, Field(ge=1, le=32)]
Dropout = Annotated[float, Field(ge=0, lt=1)]


class Options(BaseModel):
    """A part of a recipe: frozen, every key known, `yes` is no number and `.inf` no learning rate."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def get_union_tag(value: object) -> str:
    """Which part of a union of a word and something else is meant, so that a mistake is told of that part alone."""
    return "word" if isinstance(value, str) else "value"
