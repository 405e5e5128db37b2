"""Where Lambda enters: the model's fetch begins, settings are read, the catalog is built once per environment."""

from pilotlight.runtime import cold_start

cold_start.starting()

import os  # noqa: E402

from pilotlight.runtime.prefetch import preload, references  # noqa: E402
from pilotlight.settings import Settings  # noqa: E402
from pilotlight.storage.object_store import open_store  # noqa: E402

SETTINGS = Settings.from_environment(os.environ)
PRELOADED = references(SETTINGS.preload)
STORE = preload(open_store(SETTINGS.store), PRELOADED, seconds=SETTINGS.alias_seconds, budget=SETTINGS.model_bytes)

# What follows imports numpy and onnxruntime, which takes as long as the fetch of a hundred megabytes.
from functools import partial  # noqa: E402

from pilotlight.runtime.model_manager import Catalog  # noqa: E402

CATALOG = Catalog.of(SETTINGS, STORE)
for reference in PRELOADED[:1]:  # others would take the CPU from the first request, which is likely for this one
    CATALOG.anticipate(reference)

# onnxruntime opens what has been fetched while the interpreter imports what the first request needs.
from functions.predict.snapstart import Snapshot  # noqa: E402
from functions.predict.v2_endpoints import Endpoints  # noqa: E402
from pilotlight.api.request_context import Bill  # noqa: E402
from pilotlight.api.router import Router  # noqa: E402
from pilotlight.api.usage_log import ledger  # noqa: E402
from pilotlight.inference import recording  # noqa: E402
from pilotlight.observability import correlation  # noqa: E402


def router(settings: Settings, known: Catalog) -> Router:
    """The routes over the models of a catalog, with a bill for each call and, unless that is off, a line of the log."""
    correlation.install()
    recorder, large = recording(settings, known), settings.large_answers == "on"
    endpoints = Endpoints(known, settings.model, settings.tensor_bytes, large=large, recorder=recorder)
    after = recorder.wake if recorder else None
    return Router(endpoints.routes(), Bill(settings.memory_mb), ledger=ledger(settings.call_seconds), after=after)


def build(settings: Settings) -> Router:
    """A handler for these settings that preloads nothing."""
    return router(settings, Catalog.of(settings, open_store(settings.store)))


handle = router(SETTINGS, CATALOG)
Snapshot(handle, CATALOG, PRELOADED, partial(open_store, SETTINGS.store)).arrange(SETTINGS.initialization)
cold_start.started()
