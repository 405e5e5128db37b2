"""How a text becomes examples: tokens, and windows of them."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from pilotlight.recipes.options.part import Count, Options


class TextOptions(Options):
    """The tokenizer's size, and the windows that are learned from.

    The 256 bytes are tokens by themselves, and so is the end of a document: a vocabulary is larger than these.
    """

    vocabulary: Annotated[int, Field(gt=257, le=2**17)]  # tokens, at most
    window: Annotated[int, Field(ge=2)]  # tokens
    stride: Count | None = None  # tokens from one training window to the next; null: a window's length

    @model_validator(mode="after")
    def _check_stride(self) -> Self:
        if self.effective_stride > self.window:
            raise ValueError(f"stride must be at most the window's {self.window} tokens, else some are never learned")
        return self

    @property
    def effective_stride(self) -> int:
        """Tokens from one training window to the next."""
        return self.stride or self.window
