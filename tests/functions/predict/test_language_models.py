"""Language models at the predict function: described by V2's routes, and answered by others."""

import json
from typing import Any

import pytest

from functions.predict.handler import build_router
from pilotlight.registry.registry import Registry
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.settings import Settings
from tests import fakes
from tests.language_model_versions import publish_scripted

RESOURCES = (
    "/v2/models",
    "/v2/models/{model}",
    "/v2/models/{model}/config",
    "/v2/models/{model}/infer",
    "/v2/models/{model}/ready",
    "/v2/models/{model}/stats",
    "/v2/models/{model}/versions/{version}/infer",
)


class Predictor:
    """The predict function's router over a registry with a language model."""

    def __init__(self, registry: Registry) -> None:
        publish_scripted(registry)
        settings = Settings(store="memory://", call_seconds=-1)
        self._router = build_router(settings, ModelManager.from_settings(settings, registry.store))

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        answer = self._router(fakes.event(RESOURCES, method, path, body), None)
        return answer["statusCode"], json.loads(answer["body"])


@pytest.fixture
def predictor(registry: Registry) -> Predictor:
    return Predictor(registry)


def test_its_metadata_says_that_it_takes_and_gives_a_text(predictor: Predictor) -> None:
    status, found = predictor.ask("GET", "/v2/models/chat")
    assert status == 200
    assert [(each["name"], each["datatype"]) for each in (*found["inputs"], *found["outputs"])] == [
        ("text_input", "BYTES"),
        ("text_output", "BYTES"),
    ]
    assert predictor.ask("GET", "/v2/models/chat/config")[0] == 200
    assert predictor.ask("GET", "/v2/models/chat/stats")[0] == 200
    assert predictor.ask("GET", "/v2/models")[1] == {"models": ["chat"]}


@pytest.mark.parametrize("path", ["/v2/models/chat/infer", "/v2/models/chat/versions/1/infer"])
def test_an_inference_is_refused_with_the_routes_that_answer(predictor: Predictor, path: str) -> None:
    body = {"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["Where?"]}]}
    status, found = predictor.ask("POST", path, json.dumps(body).encode())
    assert status == 400
    assert found["error"].startswith("chat:1 is a language model, which answers at /v2/models/chat/generate, /v1/chat/")
