"""Where Lambda enters: settings are read, the store is opened once per environment, and each event is routed."""

import os

from functions.batch_api.batches import Orders
from functions.batch_api.file_store import Shelf
from functions.batch_api.files import Files
from functions.batch_api.idempotency import Once
from functions.batch_api.openai_http import complaint
from functions.batch_api.presigned_urls import Presigner
from functions.batch_api.uploads import Uploads
from pilotlight.api.request_context import Bill
from pilotlight.api.router import Router
from pilotlight.api.usage_log import ledger
from pilotlight.aws.eventbridge import Bus
from pilotlight.observability import correlation
from pilotlight.settings import Settings
from pilotlight.storage.object_store import ObjectStore, open_store


def build(settings: Settings, store: ObjectStore | None = None, bus: Bus | None = None) -> Router:
    """A handler for these settings."""
    store = store or open_store(settings.store)
    shelf, once, presigner = Shelf(store), Once(store), Presigner.of(settings.store)
    parts = (Files(shelf, once, presigner), Uploads(shelf, once, presigner), Orders(shelf, once, bus or Bus()))
    routes = {resource: verbs for part in parts for resource, verbs in part.routes().items()}
    correlation.install()
    return Router(routes, Bill(settings.memory_mb), ledger=ledger(settings.call_seconds), worded=complaint)


handle = build(Settings.from_environment(os.environ))
