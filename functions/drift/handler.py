"""The Lambda entry point, run by the schedule alone: it reads the settings once, and reports on each version."""

import os
from collections.abc import Mapping
from typing import Any

from functions.drift.nightly_report import NightlyReporter
from pilotlight.api.request_context import RequestContext
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store


def build_nightly_reporter(settings: Settings) -> NightlyReporter:
    """Build the reporter for these settings."""
    return NightlyReporter(Registry(open_store(settings.store)))


def handle(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Compare the captures since the last report; return the results as sentences, for the log and for tests."""
    return {"done": list(REPORTER.report_versions(RequestContext.from_event(event, context).deadline))}


REPORTER = build_nightly_reporter(Settings.from_environment(os.environ))
