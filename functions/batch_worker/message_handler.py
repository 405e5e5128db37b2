"""Answer messages: each answer is written once, under its own key, however often the message is delivered.

    outbox/messages/<key>.json    the V2 answer with the message's correlation_id in its parameters, create-only

Two deliveries may both compute; one of them writes. A reply to a queue is sent after the write, at least once.
"""

import hashlib
import json
import re
from dataclasses import dataclass

from functions.batch_worker.events import InferenceMessage
from functions.batch_worker.inbox_file import MESSAGES_FOLDER
from functions.batch_worker.inputs import JsonInput
from functions.batch_worker.outbound_messages import Dispatcher
from functions.batch_worker.predictor import Predictor
from pilotlight.api.request_context import RequestContext
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from pilotlight.storage.object_store import ObjectStore


@dataclass(frozen=True)
class MessageHandler:
    """Answers messages and writes the answers to a store."""

    store: ObjectStore
    predictor: Predictor
    dispatcher: Dispatcher

    def handle(self, message: InferenceMessage, deadline: float, trace: RequestContext | None = None) -> str:
        """Answer a message unless that was done before, and return the path of the answer."""
        if not message.key:
            raise InvalidInputError("The event has no id, under which its answer would be kept.")
        if message.reply_to:
            self.dispatcher.check_reply_queue(message.reply_to)
        path = f"{MESSAGES_FOLDER}{to_object_name(message.key)}.json"
        answer = None if message.fresh else self._find_answer(path)
        if answer is None:
            answer = self._compute_answer(message, path, deadline, trace)
        if message.reply_to:
            self.dispatcher.send_reply(message.reply_to, message.key, answer, f"{self.store.url}/{path}")
        return path

    def _find_answer(self, path: str) -> bytes | None:
        try:
            return self.store.get(path).data
        except NotFoundError:
            return None

    def _compute_answer(
        self, message: InferenceMessage, path: str, deadline: float, trace: RequestContext | None
    ) -> bytes:
        json_input = JsonInput.parse(message.body)
        answer, _ = self.predictor.predict(json_input, self._choose_model(message, json_input), deadline, trace)
        answer = add_correlation(answer, message.correlation)
        try:
            self.store.create(path, answer)
        except AlreadyExistsError:  # another delivery was faster
            return self.store.get(path).data
        return answer

    def _choose_model(self, message: InferenceMessage, json_input: JsonInput) -> ModelReference | None:
        """Choose the attribute's model, else the body's or the default; the attribute may name its version."""
        if message.model:
            return ModelReference.from_selector(message.model, message.version or None)
        reference = json_input.get_reference() or self.predictor.find_default_model()
        return (
            ModelReference.from_selector(reference.name, message.version)
            if reference and message.version
            else reference
        )


def add_correlation(answer: bytes, correlation: str) -> bytes:
    """Add to an answer, which has no parameters of its own, the id by which its sender finds it."""
    if not correlation:
        return answer
    return b'%b,"parameters":{"correlation_id":%b}}' % (answer[:-1], json.dumps(correlation).encode())


def to_object_name(key: str) -> str:
    """Return the key as the name of an object; hash a key that is not a valid name."""
    return key if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", key) else hashlib.sha256(key.encode()).hexdigest()
