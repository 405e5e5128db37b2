"""A control plane on Powertools, for R1: a resolver with validation, bodies in pydantic, Logger and Metrics.

The variable API says whose bodies and paths: registry, batch or training. Paths with parameters are left out, so that
the real thing would take longer. It lists the models of a registry; what is measured is the start.
"""

import os
from importlib import import_module
from inspect import isclass
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from msgspec import Struct
from pydantic import BaseModel, create_model

from pilotlight.api.routes import SCOPES
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store

API = os.environ["API"]
SCHEMAS = {"registry": "registry", "batch": "openai", "training": "training"}[API]
SCOPE = {"registry": "admin", "batch": "batch", "training": "train"}[API]

logger, metrics = Logger(service=API), Metrics(namespace="Pilotlight", service=API)
registry = Registry(open_store(os.environ["PILOTLIGHT_STORE"]))
resolver = APIGatewayRestResolver(enable_validation=True)


class Listing(BaseModel):
    """An answer."""

    data: list[str]


def build_models() -> list[type[BaseModel]]:
    """Build a pydantic twin of each body in the function's module of schemas, with plain types."""
    module = import_module(f"pilotlight.api.schemas.{SCHEMAS}")
    structs = [value for value in vars(module).values() if isclass(value) and issubclass(value, Struct)]
    plain: Any = (str | int | float | bool | None, None)
    return [
        create_model(struct.__name__, **dict.fromkeys(struct.__struct_fields__, plain))
        for struct in structs
        if struct is not Struct
    ]


def add_routes(path: str, model: type[BaseModel]) -> None:
    """Add the GET of a path, and its POST, whose body is a `model`."""

    def create(body: Any) -> Listing:  # noqa: ANN401 - its type is set below
        return Listing(data=[])

    create.__annotations__["body"] = model
    resolver.post(path)(create)

    @resolver.get(path)
    def list_all() -> Listing:
        return Listing(data=registry.list_models())


models = build_models()
for index, (path, scope) in enumerate(SCOPES.items()):
    if scope == SCOPE and "{" not in path:
        add_routes(path, models[index % len(models)])


@logger.inject_lambda_context
@metrics.log_metrics
def handle(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Where Lambda enters."""
    metrics.add_metric("Requests", MetricUnit.Count, 1)
    return resolver.resolve(event, context)
