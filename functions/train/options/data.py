"""Which examples a run learns from, and how they are shared out."""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from functions.train.options.part import Count, Options, Seed, Share
from functions.train.options.text import TextOptions


class Fractions(Options):
    """How the examples are shared out; the three sum to one."""

    train: Share
    validation: Share
    test: Share

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, validation and test must sum to 1, not to {total:.6g}")
        return self


class DataOptions(Options):
    """The data set and its split. The split has its own seed: runs of other seeds stay comparable on one test set."""

    name: Literal["digits", "breast-cancer", "wine", "diabetes", "topics"]
    seed: Seed = 0
    fractions: Fractions
    calibration: Count = 256  # examples of the training set that the quantizer sees
    text: Annotated[TextOptions | None, Field(validate_default=True)] = None  # how a text becomes tokens

    @field_validator("text")
    @classmethod
    def _tokens(cls, text: TextOptions | None, info: ValidationInfo) -> TextOptions | None:
        if (info.data.get("name") == "topics") != (text is not None):
            raise ValueError("it must be given for topics, with a vocabulary and a window, and for nothing else")
        return text
