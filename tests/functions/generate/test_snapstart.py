"""Snapshots of the generate function: models have written a few tokens before the first request."""

from collections.abc import Mapping
from typing import Any

import pytest

from functions.generate.handler import build_router
from functions.generate.snapstart import GenerateSnapStartHooks
from pilotlight.contracts.names import ModelReference
from pilotlight.registry.registry import Registry
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.snapshot_hooks import PROVISIONED
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.language_model_versions import SCRIPT, build_scripted, describe_scripted, publish_scripted


class Environment:
    """A handler over a store in memory that notes what it is asked."""

    def __init__(self) -> None:
        self.store = open_store("memory://")
        self.registry = Registry(self.store)
        settings = Settings(store="memory://", call_seconds=-1)
        self.catalog = ModelManager.from_settings(settings, self.store, generates_text=True)
        self.asked: list[tuple[str, int]] = []
        self._router = build_router(settings, self.catalog)

    def handle(self, event: Mapping[str, Any], context: object) -> dict[str, Any]:
        answer = self._router(event, context)
        assert isinstance(answer, dict)
        self.asked.append((event["path"], answer["statusCode"]))
        return answer

    def prime(self, *references: ModelReference) -> None:
        GenerateSnapStartHooks(self.handle, self.catalog, references, lambda: self.store).install(PROVISIONED)


def test_a_chat_is_answered_before_the_first_request_and_nothing_of_it_is_kept() -> None:
    environment = Environment()
    publish_scripted(environment.registry)
    environment.prime(ModelReference("chat"))
    assert environment.asked == [("/v1/chat/completions", 200)]
    engine = environment.catalog.get_model(ModelReference("chat")).language_model
    assert engine is not None
    assert engine.cached_bytes == 0


def test_a_model_without_chats_continues_a_text() -> None:
    environment = Environment()
    scripted = build_scripted(SCRIPT, chat_template=None)
    files = {"model.onnx": scripted.graph, "tokenizer.json": scripted.tokenizer_json.encode()}
    environment.registry.publish_version(describe_scripted(scripted), files)
    environment.prime(ModelReference("chat", 1))
    assert environment.asked == [("/v1/completions", 200)]


def test_a_model_that_is_refused_is_told_and_other_models_are_opened(caplog: pytest.LogCaptureFixture) -> None:
    environment = Environment()
    fakes.publish(environment.registry)
    environment.prime(ModelReference("nothing"), ModelReference("double"))
    assert "nothing@champion is not primed" in caplog.text
    assert environment.catalog.model_cache.keys() == [("double", 1)]
    assert environment.asked == []
