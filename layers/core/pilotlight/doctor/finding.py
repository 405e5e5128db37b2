"""One check and how it ended: it passes, it fails, or it could not be made here, and one sentence says why."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from pilotlight.errors import PilotlightError

State = Literal["passes", "fails", "not checked"]


class FaultError(PilotlightError):
    """A check has found something wrong; the text says what, and what to do."""


class NotCheckedError(PilotlightError):
    """A check cannot be made here; the text says what it would take."""


@dataclass(frozen=True)
class Check:
    """Something to look at. `look` gives the sentence of a check that passes; any other `PilotlightError` fails it."""

    name: str
    look: Callable[[], str]


class Finding(Struct, frozen=True):
    """How a check ended."""

    check: str
    state: State
    said: str


def finding(check: Check) -> Finding:
    """Make a check."""
    try:
        return Finding(check.name, "passes", check.look())
    except NotCheckedError as exc:
        return Finding(check.name, "not checked", str(exc))
    except PilotlightError as exc:
        return Finding(check.name, "fails", str(exc))


def listed(names: list[str], most: int = 3) -> str:
    """Names for a sentence, the first few of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
