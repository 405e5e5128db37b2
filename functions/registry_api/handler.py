"""Where Lambda enters: settings are read, the registry is opened once per environment, and each event is routed."""

import os

from functions.registry_api.aliases import Moves
from functions.registry_api.docs import Docs
from functions.registry_api.repository import Endpoints
from functions.registry_api.versions import Versions
from pilotlight.api.request_context import Bill
from pilotlight.api.router import Router
from pilotlight.api.usage_log import ledger
from pilotlight.aws.lambda_invoke import Function
from pilotlight.observability import correlation
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store


def build(settings: Settings) -> Router:
    """A handler for these settings."""
    registry, promoter = Registry(open_store(settings.store)), Function(settings.promoter)
    moves = Moves(registry, promoter, approval=settings.approval == "required")
    parts = (Endpoints(registry), Versions(registry), moves, Docs())
    correlation.install()
    routes = {resource: verbs for part in parts for resource, verbs in part.routes().items()}
    return Router(routes, Bill(settings.memory_mb), ledger=ledger(settings.call_seconds))


handle = build(Settings.from_environment(os.environ))
