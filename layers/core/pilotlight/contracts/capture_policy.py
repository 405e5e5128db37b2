"""What may be kept of the requests to a model: the policy in its manifest, which whoever publishes it decides.

A frozen msgspec struct as in the manifest. Without a word on it in a manifest, `Capture()` holds: summaries.
It knows names of fields, no request and no store.
"""

from collections.abc import Collection
from typing import Literal

from msgspec import Struct

Treatment = Literal["keep", "hash", "drop"]
STRICTNESS: tuple[Treatment, ...] = ("keep", "hash", "drop")
Extent = Literal["off", "summary", "whole"]


class Capture(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of a sampled request, if the stack samples any (parameter CaptureRate, which is 0).

    A summary is a table's numbers and those of its categories that the manifest names, for images and other tensors
    their mean, spread and the like, for texts how many tokens and how rare, and the model's answer: never an image, a
    text, a tensor, a header or a caller. `whole` adds the inputs as they came.
    """

    keep: Extent = "summary"
    mask: dict[str, Treatment] = {}  # by field: a column, an input or an output
    others: Literal["keep", "drop"] = "keep"  # fields that `mask` does not name

    def treatment(self, *names: str) -> Treatment:
        """What becomes of something that is known by these names: the strictest word about any of them."""
        said = [self.mask[name] for name in names if name in self.mask]
        return max(said, key=STRICTNESS.index) if said else self.others

    def check(self, known: Collection[str]) -> None:
        """Refuse a field that the model does not have: a slip of the pen would keep what must not be kept."""
        if strange := sorted(set(self.mask) - set(known)):
            raise ValueError(f"masks {strange}, but its fields are {sorted(known)}")
