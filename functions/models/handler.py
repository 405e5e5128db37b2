"""Where Lambda enters: settings are read, the registry is opened once per environment, and each event is routed."""

import os

from functions.models.endpoints import Endpoints
from pilotlight.api.router import Router
from pilotlight.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage import open_store


def build(settings: Settings) -> Router:
    """A handler for these settings."""
    return Router(Endpoints(Registry(open_store(settings.store))).routes())


handle = build(Settings.from_environment(os.environ))
