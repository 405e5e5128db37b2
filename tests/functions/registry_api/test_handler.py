"""The models function as Lambda calls it, and what the predict function makes of its changes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from functions.registry_api.handler import build_registry_api
from functions.registry_api.model_repository import RepositoryEndpoints
from pilotlight.api.powertools_router import ResolverRouter
from pilotlight.contracts.alias import AliasDocument
from pilotlight.errors import ChangedError
from pilotlight.registry.registry import Registry, alias_path
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes

ROOT = Path(__file__).parents[3]
LOAD, UNLOAD, INDEX = "/v2/repository/models/double/load", "/v2/repository/models/double/unload", "/v2/repository/index"


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def registry(store_url: str) -> Registry:
    registry = Registry(open_store(store_url))
    for name in ("double", "double", "square"):
        fakes.publish(registry, name)
    return registry


@pytest.fixture
def handle(registry: Registry, store_url: str) -> ResolverRouter:
    return build_registry_api(Settings(store=store_url))


def call(handle: ResolverRouter, path: str, body: bytes = b"", method: str = "POST") -> tuple[int, Any]:
    answer = handle(fakes.event(handle._routes, method, path, body), None)
    return answer["statusCode"], json.loads(answer["body"])


def states(handle: ResolverRouter, body: bytes = b"") -> list[tuple[str, str, str]]:
    status, rows = call(handle, INDEX, body)
    assert status == 200
    assert all(set(row) == {"name", "version", "state", "reason"} for row in rows)
    return [(row["name"], row["version"], row["state"]) for row in rows]


def test_the_index_lists_every_version(handle: ResolverRouter) -> None:
    expected = [("double", "1", "READY"), ("double", "2", "READY"), ("square", "1", "READY")]
    assert states(handle) == states(handle, b"{}") == states(handle, b'{"ready": true}') == expected


def test_an_empty_store_has_an_empty_index(tmp_path: Path) -> None:
    assert states(build_registry_api(Settings(store=str(tmp_path / "nothing")))) == []


def test_unload_takes_the_champion_out_of_service_and_load_puts_it_back(
    handle: ResolverRouter, registry: Registry
) -> None:
    status, body = call(handle, UNLOAD, b'{"parameters": {"unload_dependents": false, "reason": "drifts"}}')
    assert (status, body["state"]) == (200, "UNAVAILABLE")
    assert body["reason"].startswith("drifts (since ")
    suspended = registry.load_alias("double", "champion").suspended
    assert suspended is not None
    assert suspended.reason == "drifts"
    assert states(handle)[:2] == [("double", "1", "UNAVAILABLE"), ("double", "2", "UNAVAILABLE")]
    assert states(handle, b'{"ready": true}') == [("square", "1", "READY")]
    assert call(handle, LOAD, b"{}") == (200, {"name": "double", "version": "1", "state": "READY", "reason": ""})
    assert registry.load_alias("double", "champion").suspended is None
    assert len(states(handle, b'{"ready": true}')) == 3


def test_who_unloads_is_written_down(handle: ResolverRouter, registry: Registry) -> None:
    event = fakes.event(handle._routes, "POST", UNLOAD)
    event["requestContext"] = {"identity": {"sourceIp": "192.0.2.7", "apiKeyId": "key-1"}}
    handle(event, None)
    suspended = registry.load_alias("double", "champion").suspended
    assert suspended is not None
    assert suspended.by == "key-1"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"parameters": null}', b'{"parameters": {}}'])
def test_nothing_is_said_in_several_ways(handle: ResolverRouter, body: bytes) -> None:
    assert (call(handle, UNLOAD, body)[0], call(handle, LOAD, body)[0]) == (200, 200)


def test_both_are_fine_twice(handle: ResolverRouter, registry: Registry) -> None:
    assert call(handle, LOAD)[0] == 200
    first = call(handle, UNLOAD, b'{"parameters": {"reason": "first"}}')
    assert call(handle, UNLOAD, b'{"parameters": {"reason": "second"}}') == first


def test_a_promotion_does_not_resume(handle: ResolverRouter, registry: Registry) -> None:
    call(handle, UNLOAD)
    registry.move_alias("double", "champion", 2, actor="gate", reason="better")
    assert states(handle)[0] == ("double", "1", "UNAVAILABLE")


def test_a_model_whose_publisher_died_before_its_aliases_is_told(handle: ResolverRouter, registry: Registry) -> None:
    registry.store.delete(alias_path("square", "champion"))
    assert states(handle)[-1] == ("square", "1", "UNAVAILABLE")


def test_who_loses_the_race_is_told(registry: Registry) -> None:
    class Racing(Registry):
        def suspend_alias(self, name: str, alias: str, *, actor: str, reason: str) -> AliasDocument:
            raise ChangedError("was changed by somebody else; read it again.")

    handle = ResolverRouter(RepositoryEndpoints(Racing(registry.store)).routes())
    assert call(handle, UNLOAD)[0] == 409


@pytest.mark.parametrize(
    ("path", "body", "status", "hint"),
    [
        (LOAD, b'{"parameters": {"config": "{}"}}', 501, "'config' is not served: a version never changes"),
        (LOAD, b'{"parameters": {"config": "{}", "file:1/model.onnx": "AA=="}}', 501, "'config' is not served"),
        (LOAD, b'{"parameters": {"file:1/model.onnx": "AA=="}}', 501, "'file:1/model.onnx' is not served"),
        (LOAD, b"[]", 400, "not a JSON object: []"),
        (UNLOAD, b"{", 400, "The body is not JSON"),
        (UNLOAD, b'{"parameters": 1}', 400, "$.parameters"),
        (UNLOAD, b"[" * 100_000, 400, "The body is not JSON"),
        (INDEX, b'{"ready": "yes"}', 400, "$.ready"),
        ("/v2/repository/models/nothing/load", b"", 404, "There is no model 'nothing'"),
        ("/v2/repository/models/nothing/unload", b"", 404, "There is no model 'nothing'"),
        ("/v2/repository/models/a%20b/unload", b"", 400, "is not a model name"),
    ],
)
def test_what_is_wrong_is_said(handle: ResolverRouter, path: str, body: bytes, status: int, hint: str) -> None:
    found, answer = call(handle, path, body)
    assert found == status
    assert hint in answer["error"]


def test_a_wrong_verb_is_told_the_right_one(handle: ResolverRouter) -> None:
    assert call(handle, INDEX, method="GET") == (405, {"error": f"{INDEX} does not take GET; use POST."})


def test_the_control_plane_opens_no_model() -> None:
    heavy = ("onnxruntime", "numpy", "boto3", "torch")
    code = f"import sys, functions.registry_api.handler; print([m for m in {heavy} if m in sys.modules])"
    environment = {"PYTHONPATH": f"{ROOT / 'layers/core'}:{ROOT}", "PILOTLIGHT_STORE": "memory://"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("path", [LOAD, UNLOAD, INDEX])
def test_a_body_of_another_form_is_named_in_words(handle: ResolverRouter, path: str) -> None:
    name = "ready" if path == INDEX else "parameters"
    status, answer = call(handle, path, f'{{"{name}": 1}}'.encode())
    assert status == 400
    assert answer["error"].startswith(f"The body is not one of the repository extension: $.{name}: Input should be")
