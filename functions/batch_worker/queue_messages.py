"""One message: its answer is written once under its own key, whatever happens and however often it is delivered.

    outbox/messages/<key>.json    the V2 answer with the message's correlation_id in its parameters, create-only

Two deliveries may both compute, one of them writes. A reply to a queue follows what is written, at least once.
"""

import hashlib
import json
import re
from dataclasses import dataclass

from functions.batch_worker.dispatch import Sender
from functions.batch_worker.events import Message
from functions.batch_worker.inputs import Json
from functions.batch_worker.paths import MESSAGES
from functions.batch_worker.predictor import Answers
from pilotlight.api.request_context import Trace
from pilotlight.contracts.manifest import Reference
from pilotlight.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from pilotlight.storage.object_store import ObjectStore


@dataclass(frozen=True)
class Messages:
    """Answers messages into a store."""

    store: ObjectStore
    answers: Answers
    sender: Sender

    def see_to(self, message: Message, ends: float, trace: Trace | None = None) -> str:
        """Answer it unless that has been done; gives the path of its answer."""
        if not message.key:
            raise InvalidInputError("The event has no id, under which its answer would be kept.")
        if message.reply_to:
            self.sender.check(message.reply_to)
        path = f"{MESSAGES}{name(message.key)}.json"
        answer = None if message.fresh else self._known(path)
        if answer is None:
            answer = self._answered(message, path, ends, trace)
        if message.reply_to:
            self.sender.reply(message.reply_to, message.key, answer, f"{self.store.url}/{path}")
        return path

    def _known(self, path: str) -> bytes | None:
        try:
            return self.store.get(path).data
        except NotFoundError:
            return None

    def _answered(self, message: Message, path: str, ends: float, trace: Trace | None) -> bytes:
        body = Json.read(message.body)
        answer, _ = self.answers.answer(body, self._meant(message, body), ends, trace)
        answer = correlated(answer, message.correlation)
        try:
            self.store.create(path, answer)
        except AlreadyExistsError:  # another delivery of it was faster
            return self.store.get(path).data
        return answer

    def _meant(self, message: Message, body: Json) -> Reference | None:
        """The attributes' model; without one, the body's or the default, of which the attribute may name a version."""
        if message.model:
            return Reference.select(message.model, message.version or None)
        known = body.reference() or self.answers.default()
        return Reference.select(known.name, message.version) if known and message.version else known


def correlated(answer: bytes, correlation: str) -> bytes:
    """The answer, which has no parameters of its own, with the id by which its sender finds it."""
    if not correlation:
        return answer
    return b'%b,"parameters":{"correlation_id":%b}}' % (answer[:-1], json.dumps(correlation).encode())


def name(key: str) -> str:
    """The key as the name of an object; a key that is no such name becomes its hash."""
    return key if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", key) else hashlib.sha256(key.encode()).hexdigest()
