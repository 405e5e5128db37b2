"""Endpoints of /v1/models: the registry's models as OpenAI's clients list them."""

import logging
from datetime import datetime
from typing import Any

from pilotlight.api.http import Request, Response
from pilotlight.api.router import Routes
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import PilotlightError
from pilotlight.runtime.model_manager import ModelManager

LOG = logging.getLogger("pilotlight.generate")
OWNER = "pilotlight"


class ModelEndpoints:
    """The endpoints that tell which models there are; they read manifests and open no model."""

    def __init__(self, model_manager: ModelManager) -> None:
        self._model_manager = model_manager

    def routes(self) -> Routes:
        """Return the table of routes."""
        return {"/v1/models": {"GET": self.list_models}, "/v1/models/{model}": {"GET": self.show_model}}

    def list_models(self, request: Request) -> Response:
        """List the models with a champion; one whose documents cannot be read does not hide the others."""
        models = []
        for name in self._model_manager.registry.list_models():
            try:
                models.append(self._describe(name))
            except PilotlightError as exc:
                LOG.info("%s is not listed: %s", name, exc)
        return Response.json({"object": "list", "data": models})

    def show_model(self, request: Request) -> Response:
        """Describe one model: name, name:3 or name@alias."""
        return Response.json(self._describe(request.parameters["model"]))

    def _describe(self, model: str) -> dict[str, Any]:
        return describe_model(model, self._model_manager.resolve_manifest(ModelReference.parse(model)))


def describe_model(model: str, manifest: Manifest) -> dict[str, Any]:
    """Describe a model under the name by which it was asked for; a language model has a context length too."""
    created = int(datetime.fromisoformat(manifest.created).timestamp())
    description: dict[str, Any] = {"id": model, "object": "model", "created": created, "owned_by": OWNER}
    if manifest.decoder is not None:
        description |= {"max_model_len": manifest.decoder.context_length}
    return description
