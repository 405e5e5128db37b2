"""The scopes of callers: `infer`, `batch`, `admin` and `train`; the table of routes says what each opens.

This module imports nothing that takes time, since the authorizer reads it at its start.
"""

from collections.abc import Iterable
from typing import Literal, get_args

from pilotlight.errors import InvalidInputError

Scope = Literal["infer", "batch", "admin", "train"]
ALL_SCOPES: tuple[Scope, ...] = get_args(Scope)


def parse_scopes(text: str) -> tuple[Scope, ...]:
    """Parse scopes that commas separate, such as `infer,batch`, to their usual order; `InvalidInputError` otherwise."""
    words = [word.strip() for word in text.split(",")]
    if unknown := [word for word in words if word not in ALL_SCOPES]:
        raise InvalidInputError(
            f"{', '.join(map(repr, unknown))} is no scope; write one or more of {', '.join(ALL_SCOPES)}, with commas."
        )
    return sort_scopes(words)


def sort_scopes(scopes: Iterable[str]) -> tuple[Scope, ...]:
    """Sort known scopes in their usual order, each once."""
    named = set(scopes)
    return tuple(scope for scope in ALL_SCOPES if scope in named)
