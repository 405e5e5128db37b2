"""Where Lambda enters: the model's fetch begins, settings are read, the catalog is built once per environment."""

import os

from pilotlight.runtime.preload import preload, references
from pilotlight.settings import Settings
from pilotlight.storage import ObjectStore, open_store

SETTINGS = Settings.from_environment(os.environ)
STORE = preload(
    open_store(SETTINGS.store), references(SETTINGS.preload), seconds=SETTINGS.alias_seconds, budget=SETTINGS.model_bytes
)

# What follows imports numpy and onnxruntime, which takes as long as the fetch of a hundred megabytes.
from functions.predict.endpoints import Endpoints  # noqa: E402
from pilotlight.api.router import Router  # noqa: E402
from pilotlight.registry import Registry  # noqa: E402
from pilotlight.runtime.catalog import Catalog  # noqa: E402
from pilotlight.runtime.warm import WarmModels  # noqa: E402


def build(settings: Settings, store: ObjectStore | None = None) -> Router:
    """A handler for these settings, with nothing loaded yet."""
    catalog = Catalog(
        Registry(store or open_store(settings.store)),
        WarmModels(settings.model_bytes),
        memory_mb=settings.memory_mb,
        alias_seconds=settings.alias_seconds,
    )
    return Router(Endpoints(catalog).routes())


handle = build(SETTINGS, STORE)
