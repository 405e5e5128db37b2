"""Where Lambda enters, by the clock alone: settings are read once, then each version with captures is seen to."""

import os
from collections.abc import Mapping
from typing import Any

from functions.drift.nightly_report import Duty
from pilotlight.api.request_context import Trace
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store


def build(settings: Settings) -> Duty:
    """The duty for these settings."""
    return Duty(Registry(open_store(settings.store)))


def handle(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Compare what was kept since the last time; what was found comes back as sentences, for the log and for tests."""
    return {"done": list(DUTY.see_to(Trace.of(event, context).ends))}


DUTY = build(Settings.from_environment(os.environ))
