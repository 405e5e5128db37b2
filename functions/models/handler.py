"""Where Lambda enters: settings are read, the registry is opened once per environment, and each event is routed."""

import os

from functions.models.docs import Docs
from functions.models.endpoints import Endpoints
from functions.models.moves import Moves
from functions.models.versions import Versions
from pilotlight import correlation
from pilotlight.api.ledger import ledger
from pilotlight.api.router import Router
from pilotlight.api.trace import Bill
from pilotlight.invoke import Function
from pilotlight.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage import open_store


def build(settings: Settings) -> Router:
    """A handler for these settings."""
    registry, promoter = Registry(open_store(settings.store)), Function(settings.promoter)
    moves = Moves(registry, promoter, approval=settings.approval == "required")
    parts = (Endpoints(registry), Versions(registry), moves, Docs())
    correlation.install()
    routes = {resource: verbs for part in parts for resource, verbs in part.routes().items()}
    return Router(routes, Bill(settings.memory_mb), ledger=ledger(settings.call_seconds))


handle = build(Settings.from_environment(os.environ))
