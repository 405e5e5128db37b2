"""Where Lambda enters: settings are read once, requests are routed, and the ends of jobs are written down."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from functions.training_api import job_events
from functions.training_api.aws_batch import Batch
from functions.training_api.endpoints import Endpoints
from functions.training_api.launcher import Launcher, Nowhere
from functions.training_api.local_launcher import Local
from pilotlight.api.request_context import Bill
from pilotlight.api.router import Router
from pilotlight.api.usage_log import Ledger, ledger
from pilotlight.observability import correlation
from pilotlight.settings import Settings
from pilotlight.storage.object_store import ObjectStore, open_store

JOB = "functions.train"
NOWHERE = "none"  # the queue of a stack that trains nothing


class Trainer(Router):
    """A Lambda handler for the API's requests and the bus's events."""

    def __init__(
        self, store: ObjectStore, launcher: Launcher, bill: Bill | None = None, ledger: Ledger | None = None
    ) -> None:
        super().__init__(Endpoints(store, launcher).routes(), bill, ledger)
        self._store = store

    def __call__(self, event: Mapping[str, Any], context: object) -> dict[str, Any]:
        """Answer a request; of an event, what was done comes back as a sentence, for the log."""
        if "detail-type" in event:
            return {"done": [job_events.record(self._store, event)]}
        return super().__call__(event, context)


def launcher(settings: Settings) -> Launcher:
    """Batch where a queue is named, a process of this machine where nothing is and the training job lies beside us."""
    if settings.training_queue and settings.training_queue != NOWHERE:
        return Batch(settings)
    if settings.training_queue or find_spec(JOB) is None:  # as in Lambda's package, which holds this function alone
        return Nowhere()
    return Local(settings.store, Path(settings.trainings))


def build(settings: Settings, store: ObjectStore | None = None) -> Trainer:
    """A handler for these settings."""
    correlation.install()
    store = store or open_store(settings.store)
    return Trainer(store, launcher(settings), Bill(settings.memory_mb), ledger(settings.call_seconds))


handle = build(Settings.from_environment(os.environ))
