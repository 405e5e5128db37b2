"""Lambda's entry: reads the settings and opens the store once per environment, and routes each event."""

import os

from functions.batch_api.batches import BatchEndpoints
from functions.batch_api.files import FileEndpoints
from functions.batch_api.idempotency import IdempotencyKeys
from functions.batch_api.uploads import UploadEndpoints
from pilotlight.api.call_cost import CostMeter
from pilotlight.api.openai_errors import to_openai_error
from pilotlight.api.powertools_router import ResolverRouter
from pilotlight.api.usage_log import create_usage_log
from pilotlight.aws.eventbridge import EventBus
from pilotlight.aws.presigned_urls import Presigner
from pilotlight.observability import correlation
from pilotlight.settings import Settings
from pilotlight.storage.object_store import ObjectStore, open_store


def build_batch_api(
    settings: Settings, store: ObjectStore | None = None, bus: EventBus | None = None
) -> ResolverRouter:
    """Build a handler for these settings."""
    store = store or open_store(settings.store)
    idempotency_keys, presigner = IdempotencyKeys(store), Presigner.from_store_url(settings.store)
    parts = (
        FileEndpoints(store, idempotency_keys, presigner),
        UploadEndpoints(store, idempotency_keys, presigner),
        BatchEndpoints(store, idempotency_keys, bus or EventBus(resource=settings.event_resource)),
    )
    routes = {resource: verbs for part in parts for resource, verbs in part.routes().items()}
    correlation.install_log_record_factory()
    return ResolverRouter(
        routes,
        CostMeter(settings.memory_mb),
        usage_log=create_usage_log(settings.call_seconds),
        error_formatter=to_openai_error,
    )


handle = build_batch_api(Settings.from_environment(os.environ))
