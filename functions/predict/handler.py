"""Where Lambda enters: the model's fetch begins, settings are read, the catalog is built once per environment."""

from pilotlight.runtime import interpreter

interpreter.starting()

import os  # noqa: E402

from pilotlight.runtime.preload import preload, references  # noqa: E402
from pilotlight.settings import Settings  # noqa: E402
from pilotlight.storage import ObjectStore, open_store  # noqa: E402

SETTINGS = Settings.from_environment(os.environ)
PRELOADED = references(SETTINGS.preload)
STORE = preload(open_store(SETTINGS.store), PRELOADED, seconds=SETTINGS.alias_seconds, budget=SETTINGS.model_bytes)

# What follows imports numpy and onnxruntime, which takes as long as the fetch of a hundred megabytes.
from functools import partial  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

from pilotlight.registry import Registry  # noqa: E402
from pilotlight.runtime.catalog import Catalog  # noqa: E402
from pilotlight.runtime.warm import WarmModels  # noqa: E402
from pilotlight.signature import PublicKey  # noqa: E402


def catalog(settings: Settings, store: ObjectStore) -> Catalog:
    """The models of a store for these settings, with nothing loaded yet."""
    trusted = PublicKey.parse(settings.signing_key) if settings.signing_key else None
    return Catalog(
        Registry(store, trusted),
        WarmModels(settings.model_bytes),
        memory_mb=settings.memory_mb,
        alias_seconds=settings.alias_seconds,
    )


CATALOG = catalog(SETTINGS, STORE)
for reference in PRELOADED[:1]:  # others would take the CPU from the first request, which is likely for this one
    CATALOG.anticipate(reference)

# onnxruntime opens what has been fetched while the interpreter imports what the first request needs.
from functions.predict.endpoints import Endpoints  # noqa: E402
from functions.predict.snapshot import Snapshot  # noqa: E402
from pilotlight import correlation  # noqa: E402
from pilotlight.api.ledger import ledger  # noqa: E402
from pilotlight.api.router import Router  # noqa: E402
from pilotlight.api.trace import Bill  # noqa: E402

if TYPE_CHECKING:
    from pilotlight.capture.recorder import Recorder


def recording(settings: Settings, known: Catalog) -> "Recorder | None":
    """What keeps a share of the requests; nothing where that share is none."""
    if not settings.capture_rate:
        return None
    from pilotlight.capture.recorder import Recorder

    return Recorder(lambda: known.registry.store, settings.capture_rate, settings.capture_seconds)


def router(settings: Settings, known: Catalog) -> Router:
    """The routes over the models of a catalog, with a bill for each call and, unless that is off, a line of the log."""
    correlation.install()
    recorder, large = recording(settings, known), settings.large_answers == "on"
    endpoints = Endpoints(known, settings.model, settings.tensor_bytes, large=large, recorder=recorder)
    after = recorder.wake if recorder else None
    return Router(endpoints.routes(), Bill(settings.memory_mb), ledger=ledger(settings.call_seconds), after=after)


def build(settings: Settings) -> Router:
    """A handler for these settings that preloads nothing."""
    return router(settings, catalog(settings, open_store(settings.store)))


handle = router(SETTINGS, CATALOG)
Snapshot(handle, CATALOG, PRELOADED, partial(open_store, SETTINGS.store)).arrange(SETTINGS.initialization)
interpreter.started()
