"""Open models before the first request, under SnapStart and provisioned concurrency.

SnapStart keeps the memory of an initialised environment and starts others from it, perhaps days later. So models are
opened, packed and run once before the snapshot, and state that must not be shared is renewed after each restore. AWS's
runtime client has the hooks; this module decides which models to prime, not how they are loaded.
"""

import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pilotlight.contracts.names import ModelReference
from pilotlight.errors import PilotlightError
from pilotlight.registry.registry import version_path
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.storage.object_store import ObjectStore

LOG = logging.getLogger("pilotlight.predict")
SNAP_START, PROVISIONED = "snap-start", "provisioned-concurrency"  # values of AWS_LAMBDA_INITIALIZATION_TYPE
Handler = Callable[[Mapping[str, Any], object], dict[str, Any]]


@dataclass(frozen=True)
class SnapStartHooks:
    """The hooks before a snapshot and after its restore, for one handler's models."""

    handler: Handler
    model_manager: ModelManager
    references: Sequence[ModelReference]
    reopen_store: Callable[[], ObjectStore]

    def install(self, initialization_type: str) -> None:
        """Register the hooks for SnapStart, or prime the models at once for provisioned concurrency."""
        if initialization_type == SNAP_START:
            from snapshot_restore_py import (  # part of Lambda's python, and not needed for other kinds of start
                register_after_restore,
                register_before_snapshot,
            )

            register_before_snapshot(self.prime_models)
            register_after_restore(self.restore_environment)
        elif initialization_type == PROVISIONED:
            self.prime_models()

    def prime_models(self) -> None:
        """Open each preloaded model, run its first golden request and pack its weights.

        A model that fails is logged; its first request is refused too, and other models still answer.
        """
        for reference in self.references:
            try:
                self._prime_model(reference)
            except PilotlightError as exc:
                LOG.error("%s is not primed: %s", reference, exc)  # noqa: TRY400 - the message is complete

    def restore_environment(self) -> None:
        """Renew what environments must not share: connections, credentials, random state, and resolved aliases."""
        random.seed()
        self.model_manager.reconnect(self.reopen_store())

    def _prime_model(self, reference: ModelReference) -> None:
        model = self.model_manager.get_model(reference)
        manifest = model.manifest
        if manifest.golden is not None:
            path = version_path(manifest.name, manifest.version, manifest.golden)
            golden = json.loads(self.model_manager.registry.store.get(path).data)
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
        answer = self.handler(event, None)
        if answer["statusCode"] != 200:
            LOG.error("%s answered its golden request with %s", reference, answer["body"])
