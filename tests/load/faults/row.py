"""One row of the table."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A fault, what is promised, and what was seen."""

    fault: str
    promised: str
    seen: str
    is_broken: bool = False  # whether something else was seen than was promised


def judge(fault: str, promised: str, seen: str, wrong: list[str]) -> Row:
    """A row from what was seen and what of it breaks the promise."""
    return Row(fault, promised, f"{seen}; BROKEN: {'; '.join(wrong[:3])}" if wrong else seen, bool(wrong))


def skip(fault: str, promised: str, reason: str) -> Row:
    """A row for what this machine cannot do."""
    return Row(fault, promised, f"not tried: {reason}")


def attempt(action: Callable[[], object], errors: type[Exception] | tuple[type[Exception], ...]) -> str:
    """Run an action that may fail with these errors; gives the error's text, empty if it did not fail."""
    try:
        action()
    except errors as exc:
        return str(exc)
    return ""
