"""The Lambda entry point: it reads the settings once, routes requests, and records the ends of jobs."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from functions.training_api import job_state_change
from functions.training_api.aws_batch import AwsBatchLauncher
from functions.training_api.endpoints import TrainingEndpoints
from functions.training_api.launcher import Launcher, NoLauncher
from functions.training_api.local_launcher import LocalLauncher
from pilotlight.api.call_cost import CostMeter
from pilotlight.api.openai_errors import to_openai_error
from pilotlight.api.powertools_router import ResolverRouter
from pilotlight.api.usage_log import UsageLog, create_usage_log
from pilotlight.contracts.home_folder import expand_home
from pilotlight.observability import correlation
from pilotlight.settings import Settings
from pilotlight.storage.object_store import ObjectStore, open_store

TRAIN_MODULE = "functions.train"
NO_QUEUE = "none"  # the queue of a stack that trains nothing


class TrainingApi(ResolverRouter):
    """A Lambda handler for the API's requests and the bus's events."""

    def __init__(
        self,
        store: ObjectStore,
        launcher: Launcher,
        cost_meter: CostMeter | None = None,
        usage_log: UsageLog | None = None,
    ) -> None:
        super().__init__(TrainingEndpoints(store, launcher).routes(), cost_meter, usage_log, to_openai_error)
        self._store = store

    def __call__(self, event: Mapping[str, Any], context: object) -> dict[str, Any]:
        """Answer a request; for an event, return what was done as a sentence, for the log."""
        if "detail-type" in event:
            return {"done": [job_state_change.record_job_end(self._store, event)]}
        return super().__call__(event, context)


def build_launcher(settings: Settings) -> Launcher:
    """Build the launcher: Batch if a queue is set, a local process if none is and the training code is installed."""
    if settings.training_queue and settings.training_queue != NO_QUEUE:
        return AwsBatchLauncher(settings)
    if (
        settings.training_queue or find_spec(TRAIN_MODULE) is None
    ):  # as in Lambda's package, which contains this function alone
        return NoLauncher()
    return LocalLauncher(settings.store, Path(expand_home(settings.trainings)))


def build_training_api(settings: Settings, store: ObjectStore | None = None) -> TrainingApi:
    """Build a handler for these settings."""
    correlation.install_log_record_factory()
    store = store or open_store(settings.store)
    return TrainingApi(
        store, build_launcher(settings), CostMeter(settings.memory_mb), create_usage_log(settings.call_seconds)
    )


handle = build_training_api(Settings.from_environment(os.environ))
