"""Where Lambda enters: settings are read once, and each event is told to the duties as what it means."""

import os
from typing import Any

from functions.promote.events import read
from functions.promote.policy import Policy
from functions.promote.promoter import Duties
from pilotlight.gate.evaluation import Gate
from pilotlight.registry.kms import KmsSigner
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store


def build(settings: Settings) -> Duties:
    """The duties for these settings; the memory is that of the functions that will serve what passes."""
    gate = Gate(Registry(open_store(settings.store)), settings.memory_mb, approval=settings.approval == "required")
    signer = KmsSigner(settings.sign_with) if settings.sign_with else None
    return Duties(gate, Policy.parse(settings.promotion), signer)


def handle(event: dict[str, Any], context: object) -> dict[str, Any]:
    """See to everything that an event tells of; what was done comes back as sentences, for the log and for tests."""
    return {"done": [sentence for occurrence in read(event) for sentence in DUTIES.see_to(occurrence)]}


DUTIES = build(Settings.from_environment(os.environ))
