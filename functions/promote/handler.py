"""The Lambda entry point: it reads the settings once, and passes each parsed event to the promoter."""

import os
from typing import Any

from functions.promote.events import parse_events
from functions.promote.policy import PromotionPolicy
from functions.promote.promoter import Promoter
from pilotlight.gate.evaluation import QualityGate
from pilotlight.registry.kms import KmsSigner
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store


def build_promoter(settings: Settings) -> Promoter:
    """Build the promoter for these settings; the memory is that of the functions that serve promoted versions."""
    gate = QualityGate(
        Registry(open_store(settings.store)),
        settings.memory_mb,
        requires_approval=settings.approval == "required",
        generation_memory_mb=settings.generate_memory_mb or None,
    )
    signer = KmsSigner(settings.sign_with) if settings.sign_with else None
    return Promoter(gate, PromotionPolicy.parse(settings.promotion), signer)


def handle(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Handle everything in an event; return what was done as sentences, for the log and for tests."""
    return {"done": [sentence for occurrence in parse_events(event) for sentence in PROMOTER.handle(occurrence)]}


PROMOTER = build_promoter(Settings.from_environment(os.environ))
