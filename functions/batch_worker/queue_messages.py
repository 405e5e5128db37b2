"""One message: its answer is written once under its own key, whatever happens and however often it is delivered.

    outbox/messages/<key>.json    the V2 answer with the message's correlation_id in its parameters, create-only

Two deliveries may both compute, one of them writes. A reply to a queue follows what is written, at least once.
"""

import hashlib
import json
import re
from dataclasses import dataclass

from functions.batch_worker.dispatch import Dispatcher
from functions.batch_worker.events import InferenceMessage
from functions.batch_worker.inputs import JsonInput
from functions.batch_worker.paths import MESSAGES_FOLDER
from functions.batch_worker.predictor import Predictor
from pilotlight.api.request_context import RequestContext
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from pilotlight.storage.object_store import ObjectStore


@dataclass(frozen=True)
class MessageHandler:
    """Answers messages into a store."""

    store: ObjectStore
    predictor: Predictor
    dispatcher: Dispatcher

    def handle(self, message: InferenceMessage, deadline: float, trace: RequestContext | None = None) -> str:
        """Answer it unless that has been done; gives the path of its answer."""
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
        except AlreadyExistsError:  # another delivery of it was faster
            return self.store.get(path).data
        return answer

    def _choose_model(self, message: InferenceMessage, json_input: JsonInput) -> ModelReference | None:
        """The attributes' model; without one, the body's or the default, of which the attribute may name a version."""
        if message.model:
            return ModelReference.from_selector(message.model, message.version or None)
        reference = json_input.get_reference() or self.predictor.find_default_model()
        return (
            ModelReference.from_selector(reference.name, message.version)
            if reference and message.version
            else reference
        )


def add_correlation(answer: bytes, correlation: str) -> bytes:
    """The answer, which has no parameters of its own, with the id by which its sender finds it."""
    if not correlation:
        return answer
    return b'%b,"parameters":{"correlation_id":%b}}' % (answer[:-1], json.dumps(correlation).encode())


def to_object_name(key: str) -> str:
    """The key as the name of an object; a key that is no such name becomes its hash."""
    return key if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", key) else hashlib.sha256(key.encode()).hexdigest()
