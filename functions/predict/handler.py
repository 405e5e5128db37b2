"""Where Lambda enters: settings are read, the catalog is built once per environment, and each event is routed."""

import os

from functions.predict.endpoints import Endpoints
from pilotlight.api.router import Router
from pilotlight.api.trace import Bill
from pilotlight.registry import Registry
from pilotlight.runtime.catalog import Catalog
from pilotlight.runtime.warm import WarmModels
from pilotlight.settings import Settings
from pilotlight.storage import open_store


def build(settings: Settings) -> Router:
    """A handler for these settings, with nothing loaded yet."""
    catalog = Catalog(
        Registry(open_store(settings.store)),
        WarmModels(settings.model_bytes),
        memory_mb=settings.memory_mb,
        alias_seconds=settings.alias_seconds,
    )
    return Router(Endpoints(catalog).routes(), Bill(settings.memory_mb))


handle = build(Settings.from_environment(os.environ))
