"""Open models before the first request, under SnapStart and provisioned concurrency.

SnapStart keeps the memory of an initialised environment and starts others from it, perhaps days later. So models are
opened, packed and run once before the snapshot, and state that must not be shared is renewed after each restore. AWS's
runtime client has the hooks; a function decides which requests warm a model, and this module when.
"""

import logging
import random
from collections.abc import Callable, Sequence

from pilotlight.contracts.names import ModelReference
from pilotlight.errors import PilotlightError
from pilotlight.runtime.model_cache import LoadedModel
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.storage.object_store import ObjectStore

LOG = logging.getLogger("pilotlight.runtime")
SNAP_START, PROVISIONED = "snap-start", "provisioned-concurrency"  # values of AWS_LAMBDA_INITIALIZATION_TYPE
ModelWarmer = Callable[[ModelReference, LoadedModel], None]


class SnapshotHooks:
    """The hooks before a snapshot and after its restore, for one handler's models."""

    def __init__(
        self,
        model_manager: ModelManager,
        references: Sequence[ModelReference],
        reopen_store: Callable[[], ObjectStore],
        warm_model: ModelWarmer,
    ) -> None:
        """Create hooks for these models; `warm_model` sends an open one its first request."""
        self._model_manager = model_manager
        self._references = references
        self._reopen_store = reopen_store
        self._warm_model = warm_model

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
        """Open each preloaded model and warm it.

        A model that fails is logged; its first request is refused too, and other models still answer.
        """
        for reference in self._references:
            try:
                self._warm_model(reference, self._model_manager.get_model(reference))
            except PilotlightError as exc:
                LOG.error("%s is not primed: %s", reference, exc)  # noqa: TRY400 - the message is complete

    def restore_environment(self) -> None:
        """Renew what environments must not share: connections, credentials, random state, and resolved aliases."""
        random.seed()
        self._model_manager.reconnect(self._reopen_store())
