"""Warm language models before the first request: each writes a few tokens through the handler."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pilotlight.contracts.names import ModelReference
from pilotlight.runtime.model_cache import LoadedModel
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.snapshot_hooks import SnapshotHooks
from pilotlight.storage.object_store import ObjectStore

LOG = logging.getLogger("pilotlight.generate")
WARM_TOKENS = 2
Handler = Callable[[Mapping[str, Any], object], dict[str, Any]]


class GenerateSnapStartHooks(SnapshotHooks):
    """The hooks of the generate function, which sends its own handler the requests."""

    def __init__(
        self,
        handler: Handler,
        model_manager: ModelManager,
        references: Sequence[ModelReference],
        reopen_store: Callable[[], ObjectStore],
    ) -> None:
        super().__init__(model_manager, references, reopen_store, self._warm)
        self._handler = handler

    def _warm(self, reference: ModelReference, model: LoadedModel) -> None:
        """Let a language model write a few tokens, of a chat if it has chats; no snapshot keeps what it was asked."""
        language_model = model.language_model
        if language_model is None:
            return
        body: dict[str, Any] = {"model": str(reference), "max_tokens": WARM_TOKENS, "temperature": 0}
        if language_model.chat_template is not None:
            self._send("/v1/chat/completions", body | {"messages": [{"role": "user", "content": "Hello"}]})
        else:
            self._send("/v1/completions", body | {"prompt": "Hello"})
        _ = language_model.constraint_compiler  # is built by now, or waited for: it shall be part of the snapshot
        language_model.release_cache()

    def _send(self, path: str, body: Mapping[str, Any]) -> None:
        """Send a request to the handler itself, so that its whole code path is warm."""
        event = {
            "resource": path,
            "path": path,
            "httpMethod": "POST",
            "headers": {"Content-Type": "application/json"},
            "body": json.dumps(body),
            "isBase64Encoded": False,
        }
        answer = self._handler(event, None)
        if answer["statusCode"] != 200:
            LOG.error("%s answered its first request with %s", body["model"], answer["body"])
