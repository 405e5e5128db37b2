"""Declare request bodies as dataclasses, which the client builds without pydantic.

The control plane's resolver validates them with pydantic, and the OpenAPI document shows their constraints: the bounds
and lengths of annotated_types, and two that it lacks, `matches` and `STRICT`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, dataclass_transform

Body = TypeVar("Body")


@dataclass_transform(frozen_default=True)
def request_body(
    complaint: str, *, extra: Literal["forbid", "ignore"] = "forbid"
) -> Callable[[type[Body]], type[Body]]:
    """Make a class a frozen dataclass for a JSON body; `extra` decides whether unknown fields are refused.

    `complaint` is the error's text for a body of another form, such as "is not a canary".
    """

    def decorate(body_type: type[Body]) -> type[Body]:
        attributes: Any = body_type
        attributes.complaint = complaint
        attributes.__pydantic_config__ = {"extra": extra}
        return dataclass(frozen=True)(body_type)

    return decorate


@dataclass(frozen=True)
class CoreSchema:
    """Keys to change in pydantic's core schema of the annotated type."""

    changes: tuple[tuple[str, object], ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:  # noqa: ANN401 - pydantic's
        """Build the type's schema with the changes."""
        return {**handler(source), **dict(self.changes)}


def matches(pattern: str) -> CoreSchema:
    """Require that a text matches a regular expression."""
    return CoreSchema((("pattern", pattern),))


STRICT = CoreSchema((("strict", True),))  # accepts no other type: neither "5" for 5 nor 1 for true
