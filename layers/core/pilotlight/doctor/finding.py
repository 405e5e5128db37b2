"""One check and how it ended: it passes, it fails, or it could not be made here, and one sentence says why."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from pilotlight.errors import PilotlightError

CheckState = Literal["passes", "fails", "not checked"]


class CheckFailedError(PilotlightError):
    """A check has found something wrong; the text says what, and what to do."""


class NotCheckedError(PilotlightError):
    """A check cannot be made here; the text says what it would take."""


@dataclass(frozen=True)
class HealthCheck:
    """Something to look at. `look` gives the sentence of a check that passes; any other `PilotlightError` fails it."""

    name: str
    run: Callable[[], str]


class CheckResult(Struct, frozen=True):
    """How a check ended."""

    check: str
    state: CheckState
    said: str


def run_check(check: HealthCheck) -> CheckResult:
    """Make a check."""
    try:
        return CheckResult(check.name, "passes", check.run())
    except NotCheckedError as exc:
        return CheckResult(check.name, "not checked", str(exc))
    except PilotlightError as exc:
        return CheckResult(check.name, "fails", str(exc))


def join_names(names: list[str], limit: int = 3) -> str:
    """Names for a sentence, the first few of them."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
