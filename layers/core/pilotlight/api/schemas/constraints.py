"""Constraints of request bodies that pydantic applies and this module states without importing it.

Bodies are dataclasses, so that the client builds them without pydantic; the control plane's resolver validates them,
and the OpenAPI document shows them. annotated_types has bounds and lengths, and these are what it lacks.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CoreSchema:
    """Keys of pydantic's core schema for the annotated type: a text's `pattern`, or `strict`."""

    changes: tuple[tuple[str, object], ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:  # noqa: ANN401 - pydantic's
        """Build the type's schema with the changes."""
        return {**handler(source), **dict(self.changes)}


def matches(pattern: str) -> CoreSchema:
    """Require that a text matches a regular expression."""
    return CoreSchema((("pattern", pattern),))


STRICT = CoreSchema((("strict", True),))  # no other type is converted to it, as "5" to 5
