"""When a run stops, and how often it saves what a killed one goes on from."""

from typing import Annotated

from pydantic import Field

from pilotlight.recipes.options.part import Count, Options, Positive


class StoppingOptions(Options):
    """Stop after `patience` epochs in which the validation loss fell by no more than `min_delta`; keep the best."""

    patience: Count
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class CheckpointOptions(Options):
    """How often to save what a killed run goes on from; either may be null. The end of a time budget always saves."""

    seconds: Positive | None = 300.0
    steps: Count | None = None
