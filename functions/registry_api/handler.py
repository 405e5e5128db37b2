"""Where Lambda enters: settings are read, the registry is opened once per environment, and each event is routed."""

import os

from functions.registry_api.aliases import AliasEndpoints
from functions.registry_api.docs import DocsEndpoints
from functions.registry_api.repository import RepositoryEndpoints
from functions.registry_api.versions import VersionEndpoints
from pilotlight.api.call_cost import CostMeter
from pilotlight.api.router import Router
from pilotlight.api.usage_log import create_usage_log
from pilotlight.aws.lambda_invoke import LambdaFunction
from pilotlight.observability import correlation
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store


def build_registry_api(settings: Settings) -> Router:
    """A handler for these settings."""
    registry, promoter = Registry(open_store(settings.store)), LambdaFunction(settings.promoter)
    alias_endpoints = AliasEndpoints(registry, promoter, approval_required=settings.approval == "required")
    parts = (RepositoryEndpoints(registry), VersionEndpoints(registry), alias_endpoints, DocsEndpoints())
    correlation.install_log_record_factory()
    routes = {resource: verbs for part in parts for resource, verbs in part.routes().items()}
    return Router(routes, CostMeter(settings.memory_mb), usage_log=create_usage_log(settings.call_seconds))


handle = build_registry_api(Settings.from_environment(os.environ))
