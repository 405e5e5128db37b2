"""What becomes of a version that has passed the gate by itself: nothing, a canary, or champion at once."""

import re
from dataclasses import dataclass

from pilotlight.errors import InvalidInputError
from pilotlight.registry import alias_updates


@dataclass(frozen=True)
class Policy:
    """`off` leaves it to a person, `champion` moves, `canary:10:1h` tries it on 10 % of requests for an hour."""

    moves: bool
    weight: int = 0  # of a canary
    bake: str = ""

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """Read the words of the template's parameter Promotion."""
        if text in ("off", "champion"):
            return cls(moves=text == "champion")
        found = re.fullmatch(r"canary:([0-9.]+):(\d+[smhd])", text)
        if found is None:
            raise InvalidInputError(f"Promotion is {text!r}, expected off, champion, or a canary such as canary:10:1h.")
        alias_updates.until(found[2])
        return cls(moves=True, weight=alias_updates.weight(float(found[1])), bake=found[2])
