"""Which examples a run learns from, and how they are shared out."""

from typing import Literal, Self

from pydantic import model_validator

from functions.train.options.part import Count, Options, Seed, Share


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

    name: Literal["digits", "breast-cancer", "wine", "diabetes"]
    seed: Seed = 0
    fractions: Fractions
    calibration: Count = 256  # examples of the training set that the quantizer sees
