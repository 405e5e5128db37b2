"""Where Lambda enters: settings are read, the store is opened once per environment, and each event is routed."""

import os

from functions.batches.files import Files
from functions.batches.once import Once
from functions.batches.orders import Orders
from functions.batches.presigner import Presigner
from functions.batches.shelf import Shelf
from functions.batches.uploads import Uploads
from functions.batches.wording import complaint
from pilotlight import correlation
from pilotlight.api.ledger import ledger
from pilotlight.api.router import Router
from pilotlight.api.trace import Bill
from pilotlight.bus import Bus
from pilotlight.settings import Settings
from pilotlight.storage import ObjectStore, open_store


def build(settings: Settings, store: ObjectStore | None = None, bus: Bus | None = None) -> Router:
    """A handler for these settings."""
    store = store or open_store(settings.store)
    shelf, once, presigner = Shelf(store), Once(store), Presigner.of(settings.store)
    parts = (Files(shelf, once, presigner), Uploads(shelf, once, presigner), Orders(shelf, once, bus or Bus()))
    routes = {resource: verbs for part in parts for resource, verbs in part.routes().items()}
    correlation.install()
    return Router(routes, Bill(settings.memory_mb), ledger=ledger(settings.call_seconds), worded=complaint)


handle = build(Settings.from_environment(os.environ))
