"""A store in memory with a model in it, and the batch function over it."""

import json
from typing import Any

import pytest

from functions.batch_worker.file_handler import FileHandler
from functions.batch_worker.handler import BatchWorker
from functions.batch_worker.message_handler import MessageHandler
from functions.batch_worker.outbound_messages import Dispatcher
from functions.batch_worker.predictor import Predictor
from pilotlight.api.model_statistics import ModelStatistics
from pilotlight.inference import InferenceService
from pilotlight.registry.registry import Registry
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.model_cache import ModelCache
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.storage.object_store import ObjectStore
from tests import fakes

REPLIES = "arn:aws:sqs:us-east-1:123456789012:replies"


class Post(Dispatcher):
    """Sends nowhere, and remembers."""

    def __init__(self) -> None:
        super().__init__([REPLIES])
        self.resumed: list[str] = []
        self.replies: list[tuple[str, bytes]] = []

    def request_resume(self, uri: str) -> None:
        self.resumed.append(uri)

    def send_reply(self, queue: str, key: str, answer: bytes, place: str) -> None:
        self.replies.append((key, answer))


class Place:
    """A store, what has left the function, and ways to tell the function something."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.post = Post()
        self.registry = Registry(store)
        self.handle = self.environment()

    def environment(self) -> BatchWorker:
        """A new one, with nothing in memory."""
        catalog = ModelManager(self.registry, ModelCache(500_000_000), memory_mb=1769, alias_seconds=0)
        answers = Predictor(InferenceService(catalog, ModelStatistics(), DeadlineRunner()))
        return BatchWorker(
            MessageHandler(self.store, answers, self.post), FileHandler(self.store, answers, self.post), self.post
        )

    def upload(self, name: str, data: bytes, context: object = None) -> str:
        """Put a file into the inbox and tell of it; what the function says."""
        self.store.put(f"inbox/{name}", data)
        return self.tell(f"{self.store.url}/inbox/{name}", context)

    def tell(self, uri: str, context: object = None) -> str:
        """The event that names this file."""
        event = {"detail-type": "Pilotlight Inference", "id": "e-1", "detail": {"s3_uri": uri}}
        return str(self.handle(event, context)["done"][0])

    def result(self, name: str) -> list[dict[str, Any]]:
        """The lines of a result."""
        return [json.loads(line) for line in self.store.get(f"outbox/{name}").data.splitlines()]

    def document(self, name: str) -> dict[str, Any]:
        """A JSON document in the outbox."""
        return dict(json.loads(self.store.get(f"outbox/{name}").data))


@pytest.fixture
def place() -> Place:
    """A store with double:1."""
    found = Place(fakes.FaultyStore())
    fakes.publish(found.registry)
    return found
