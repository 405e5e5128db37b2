"""What is done each night: a report for each version of each model that something was kept of."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pilotlight.capture import hashing, reader
from pilotlight.drift import report as inspection
from pilotlight.drift.report import Report, begin, keep, told, whole_hour
from pilotlight.errors import NotFoundError, PilotlightError
from pilotlight.observability.emf import count
from pilotlight.registry.registry import Registry

LOG = logging.getLogger("pilotlight.drift")
LATE = timedelta(hours=1)  # that a frozen environment's write may come after its time
VERSION_S = 60.0  # that a version may take; it is not begun with less left


@dataclass(frozen=True)
class Duty:
    """The reports of one night."""

    registry: Registry
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def see_to(self, ends: float) -> Iterator[str]:
        """A sentence for each version; `ends` is on time.monotonic's clock. What is not reached comes first next time.

        One version's failure is not the others'; all are tried, and said, before it is over.
        """
        hashing.secret(self.registry.store)  # predict may read it, not make it
        until = whole_hour(self.clock() - LATE)
        known = [(begin(self.registry.store, *one, until), one) for one in reader.versions(self.registry.store)]
        for since, (name, version) in sorted(known):
            if time.monotonic() + VERSION_S > ends:
                yield f"{name}:{version} is left for the next time: there is too little left of this one."
            elif since < until:
                yield self._seen_to(name, version, since, until)

    def _seen_to(self, name: str, version: int, since: datetime, until: datetime) -> str:
        try:
            report = inspection.inspect(self.registry, name, version, since, until).report
        except NotFoundError as exc:  # deleted since, or published without a profile
            return str(exc)
        except PilotlightError as exc:
            LOG.error("%s:%d could not be compared: %s", name, version, exc)  # noqa: TRY400 - the sentence tells all
            return f"{name}:{version} could not be compared: {exc}"
        if report.enough:  # else the next one begins where this one did
            self._say(report)
        return told(report)

    def _say(self, report: Report) -> None:
        path = keep(self.registry.store, report)
        if report.drifted:
            count("Drift", {"version": report.version, "drifted": report.drifted, "report": path}, model=report.model)
