"""Where Lambda enters, by the clock alone: settings are read once, then each version with captures is seen to."""

import os
from collections.abc import Mapping
from typing import Any

from functions.drift.nightly_report import NightlyReporter
from pilotlight.api.request_context import RequestContext
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store


def build_nightly_reporter(settings: Settings) -> NightlyReporter:
    """The duty for these settings."""
    return NightlyReporter(Registry(open_store(settings.store)))


def handle(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Compare what was kept since the last time; what was found comes back as sentences, for the log and for tests."""
    return {"done": list(REPORTER.report_versions(RequestContext.from_event(event, context).deadline))}


REPORTER = build_nightly_reporter(Settings.from_environment(os.environ))
