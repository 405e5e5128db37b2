"""Where Lambda enters: settings are read once, and each event is told to the duties as what it means."""

import os
from typing import Any

from functions.promote.duties import Duties
from functions.promote.occurrences import read
from functions.promote.policy import Policy
from pilotlight.gate.examination import Gate
from pilotlight.kms import KmsSigner
from pilotlight.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage import open_store

MODEL_MEMORY = "PILOTLIGHT_MODEL_MEMORY"  # MB of the function that will serve what passes, not of this one
POLICY = "PILOTLIGHT_PROMOTION"
SIGN_WITH = "PILOTLIGHT_SIGN_WITH"  # a key of KMS; empty where versions are not signed


def build(environment: dict[str, str]) -> Duties:
    """The duties for these settings."""
    settings = Settings.from_environment(environment)
    memory_mb = int(environment.get(MODEL_MEMORY) or settings.memory_mb)
    key = environment.get(SIGN_WITH)
    return Duties(
        Gate(Registry(open_store(settings.store)), memory_mb),
        Policy.parse(environment.get(POLICY) or "off"),
        KmsSigner(key) if key else None,
    )


def handle(event: dict[str, Any], context: object) -> dict[str, Any]:
    """See to everything that an event tells of; what was done comes back as sentences, for the log and for tests."""
    return {"done": [sentence for occurrence in read(event) for sentence in DUTIES.see_to(occurrence)]}


DUTIES = build(dict(os.environ))
