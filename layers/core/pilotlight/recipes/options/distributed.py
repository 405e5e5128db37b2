"""How a model is trained by several processes."""

from typing import Literal

from pilotlight.recipes.options.part import Options


class DistributedOptions(Options):
    """A copy of the model in each process (`ddp`), or a slice of each weight (`fsdp`); `auto` slices what is too large.

    How many processes there are is no matter of the recipe: the same run may go on with more or fewer.
    """

    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
