"""The capture policy: what may be kept of the requests to a model, as its publisher wrote in the manifest.

A frozen msgspec struct as in the manifest. A manifest without one has `CapturePolicy()`: summaries. The module knows
names of fields, no request and no store.
"""

from collections.abc import Collection
from typing import Literal

from msgspec import Struct

Treatment = Literal["keep", "hash", "drop"]
TREATMENTS_BY_STRICTNESS: tuple[Treatment, ...] = ("keep", "hash", "drop")
CaptureExtent = Literal["off", "summary", "whole"]


class CapturePolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of a sampled request, if the stack samples any (parameter CaptureRate, which is 0).

    A summary is a table's numbers and those of its categories that the manifest names, for images and other tensors
    their mean, spread and the like, for texts how many tokens and how rare, and the model's answer: never an image, a
    text, a tensor, a header or a caller. `whole` adds the inputs as they came.
    """

    keep: CaptureExtent = "summary"
    mask: dict[str, Treatment] = {}  # by field: a column, an input or an output
    others: Literal["keep", "drop"] = "keep"  # fields that `mask` does not name

    def get_treatment(self, *names: str) -> Treatment:
        """Return what happens to a value with these names: the strictest treatment of any of them."""
        treatments = [self.mask[name] for name in names if name in self.mask]
        return max(treatments, key=TREATMENTS_BY_STRICTNESS.index) if treatments else self.others

    def check_fields(self, existing: Collection[str]) -> None:
        """Refuse a field that the model does not have: a misspelled name would keep what must not be kept."""
        if unknown := sorted(set(self.mask) - set(existing)):
            raise ValueError(f"masks {unknown}, but its fields are {sorted(existing)}")
