"""Warm models before the first request: each answers its first golden request, and packs its weights."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pilotlight.contracts.names import ModelReference
from pilotlight.registry.registry import version_path
from pilotlight.runtime.model_cache import LoadedModel
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.snapshot_hooks import SnapshotHooks
from pilotlight.storage.object_store import ObjectStore

LOG = logging.getLogger("pilotlight.predict")
Handler = Callable[[Mapping[str, Any], object], dict[str, Any]]


class SnapStartHooks(SnapshotHooks):
    """The hooks of the predict function, which sends its own handler the requests."""

    def __init__(
        self,
        handler: Handler,
        model_manager: ModelManager,
        references: Sequence[ModelReference],
        reopen_store: Callable[[], ObjectStore],
    ) -> None:
        super().__init__(model_manager, references, reopen_store, self._warm)
        self._handler = handler
        self._registry = model_manager.registry

    def _warm(self, reference: ModelReference, model: LoadedModel) -> None:
        """Send the first golden request, and pack the weights."""
        manifest = model.manifest
        if manifest.golden is not None:
            path = version_path(manifest.name, manifest.version, manifest.golden)
            golden = json.loads(self._registry.store.get(path).data)
            self._send_infer_request(reference, golden["exchanges"][0]["request"])
        model.session.prepack_now()

    def _send_infer_request(self, reference: ModelReference, request: object) -> None:
        """Send a V2 request to the handler itself, so that its whole code path is warm."""
        resource = "/v2/models/{model}/versions/{version}/infer"
        version = str(reference.version) if reference.version else reference.alias
        event = {
            "resource": resource,
            "path": resource.format(model=reference.name, version=version),
            "httpMethod": "POST",
            "headers": {"Content-Type": "application/json", "X-Pilotlight-Capture": "off"},
            "pathParameters": {"model": reference.name, "version": version},
            "body": json.dumps(request),
            "isBase64Encoded": False,
        }
        answer = self._handler(event, None)
        if answer["statusCode"] != 200:
            LOG.error("%s answered its golden request with %s", reference, answer["body"])
