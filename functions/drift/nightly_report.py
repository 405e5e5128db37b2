"""The nightly reports: one for each version of each model that has captures."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pilotlight.capture import hashing, reader
from pilotlight.drift.report import (
    DriftReport,
    analyze_drift,
    find_report_start,
    format_report,
    save_report,
    truncate_to_hour,
)
from pilotlight.errors import NotFoundError, PilotlightError
from pilotlight.observability.emf import count
from pilotlight.registry.registry import Registry

LOG = logging.getLogger("pilotlight.drift")
LATE_WRITES = timedelta(hours=1)  # by which a frozen environment's write may come late
VERSION_BUDGET_S = 60.0  # that a version may take; it is not started with less left


@dataclass(frozen=True)
class NightlyReporter:
    """Writes the reports of one night."""

    registry: Registry
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def report_versions(self, deadline: float) -> Iterator[str]:
        """Report on each version in a sentence, until `deadline` on time.monotonic's clock.

        Versions that are not reached come first the next time. One version's failure does not stop the others.
        """
        hashing.load_hash_key(self.registry.store)  # predict may read it, not create it
        until = truncate_to_hour(self.clock() - LATE_WRITES)
        pending = [
            (find_report_start(self.registry.store, *one, until), one)
            for one in reader.list_captured_versions(self.registry.store)
        ]
        for since, (name, version) in sorted(pending):
            if time.monotonic() + VERSION_BUDGET_S > deadline:
                yield f"{name}:{version} is left for the next time: there is too little left of this one."
            elif since < until:
                yield self._report_version(name, version, since, until)

    def _report_version(self, name: str, version: int, since: datetime, until: datetime) -> str:
        try:
            drift_report = analyze_drift(self.registry, name, version, since, until).report
        except NotFoundError as exc:  # deleted since, or published without a profile
            return str(exc)
        except PilotlightError as exc:
            LOG.error("%s:%d could not be compared: %s", name, version, exc)  # noqa: TRY400 - the sentence is enough
            return f"{name}:{version} could not be compared: {exc}"
        if drift_report.has_enough_examples:  # else the next report begins where this one began
            self._publish_report(drift_report)
        return format_report(drift_report)

    def _publish_report(self, drift_report: DriftReport) -> None:
        path = save_report(self.registry.store, drift_report)
        if drift_report.drifted_names:
            count(
                "Drift",
                {"version": drift_report.version, "drifted": drift_report.drifted_names, "report": path},
                model=drift_report.model,
            )
