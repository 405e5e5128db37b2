"""A check and its result: it passes, it fails, or it cannot be made here, with one sentence as the reason."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from pilotlight.errors import PilotlightError

CheckState = Literal["passes", "fails", "not checked"]


class CheckFailedError(PilotlightError):
    """A check has failed; the text is what is wrong, and what to do."""


class NotCheckedError(PilotlightError):
    """A check cannot be made here; the text is what it would need."""


@dataclass(frozen=True)
class HealthCheck:
    """A check. `run` returns the sentence of a check that passes; any other `PilotlightError` fails it."""

    name: str
    run: Callable[[], str]


class CheckResult(Struct, frozen=True):
    """How a check ended."""

    check: str
    state: CheckState
    said: str


def run_check(check: HealthCheck) -> CheckResult:
    """Run a check."""
    try:
        return CheckResult(check.name, "passes", check.run())
    except NotCheckedError as exc:
        return CheckResult(check.name, "not checked", str(exc))
    except PilotlightError as exc:
        return CheckResult(check.name, "fails", str(exc))


def join_names(names: list[str], limit: int = 3) -> str:
    """Join the first few of some names for a sentence."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
