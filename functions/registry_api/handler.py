"""Lambda's entry: reads the settings and opens the registry once per environment, and routes each event."""

import os

from functions.registry_api.aliases import AliasEndpoints
from functions.registry_api.docs import DocsEndpoints
from functions.registry_api.model_repository import RepositoryEndpoints
from functions.registry_api.version_uploads import VersionUploadEndpoints
from functions.registry_api.versions import VersionEndpoints
from pilotlight.api.call_cost import CostMeter
from pilotlight.api.powertools_router import ResolverRouter
from pilotlight.api.usage_log import create_usage_log
from pilotlight.aws.lambda_invoke import LambdaFunction
from pilotlight.observability import correlation
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store


def build_registry_api(settings: Settings) -> ResolverRouter:
    """Build a handler for these settings."""
    registry, promoter = Registry(open_store(settings.store)), LambdaFunction(settings.promoter)
    alias_endpoints = AliasEndpoints(registry, promoter, approval_required=settings.approval == "required")
    parts = (
        RepositoryEndpoints(registry),
        VersionEndpoints(registry),
        VersionUploadEndpoints.from_settings(registry, settings),
        alias_endpoints,
        DocsEndpoints(),
    )
    correlation.install_log_record_factory()
    routes = {resource: verbs for part in parts for resource, verbs in part.routes().items()}
    return ResolverRouter(routes, CostMeter(settings.memory_mb), usage_log=create_usage_log(settings.call_seconds))


handle = build_registry_api(Settings.from_environment(os.environ))
