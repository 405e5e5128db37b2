"""What may be kept of the requests to the model that is trained: the capture policy in a recipe's words."""

from collections.abc import Mapping
from typing import Literal

import msgspec
from pydantic import Field

from pilotlight.contracts.capture_policy import CaptureExtent, CapturePolicy, Treatment
from pilotlight.recipes.options.part import Options


class CaptureOptions(Options):
    """How much is kept of a sampled request, and which fields are dropped or hashed."""

    keep: CaptureExtent = "summary"
    mask: Mapping[str, Treatment] = Field(default_factory=dict)  # by column, input or output
    others: Literal["keep", "drop"] = "keep"  # fields that mask does not name

    @property
    def policy(self) -> CapturePolicy:
        """The same for the manifest."""
        return msgspec.convert(self.model_dump(), CapturePolicy)
