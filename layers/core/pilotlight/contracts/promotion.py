"""The document of one request for a promotion through the gate, and its result."""

from typing import Literal

from msgspec import Struct

from pilotlight.contracts.names import Version


class PromotionRequest(Struct, frozen=True):
    """Bring a version to an alias through the gate; `force` moves it even if it is refused, and wants a `why`."""

    id: str
    model: str
    version: Version
    alias: str
    by: str
    at: str  # RFC 3339, UTC, when it was requested
    force: bool = False
    why: str = ""
    state: Literal["asked", "promoted", "refused", "failed"] = "asked"
    said: str = ""  # what the gate found, or what went wrong, in sentences
    done: str = ""  # RFC 3339, UTC; empty until it is finished
