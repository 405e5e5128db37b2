"""The policy for a version that has passed the gate: nothing, a canary, or champion at once."""

import re
from dataclasses import dataclass

from pilotlight.errors import InvalidInputError
from pilotlight.registry import alias_updates


@dataclass(frozen=True)
class PromotionPolicy:
    """`off` leaves it to a person, `champion` promotes, `canary:10:1h` tests it on 10 % of requests for an hour."""

    is_automatic: bool
    canary_weight: int = 0  # of a canary
    bake_time: str = ""

    @classmethod
    def parse(cls, text: str) -> "PromotionPolicy":
        """Parse the value of the template's parameter Promotion."""
        if text in ("off", "champion"):
            return cls(is_automatic=text == "champion")
        match = re.fullmatch(r"canary:([0-9.]+):(\d+[smhd])", text)
        if match is None:
            raise InvalidInputError(f"Promotion is {text!r}, expected off, champion, or a canary such as canary:10:1h.")
        alias_updates.compute_bake_end(match[2])
        return cls(
            is_automatic=True, canary_weight=alias_updates.weight_from_percent(float(match[1])), bake_time=match[2]
        )
