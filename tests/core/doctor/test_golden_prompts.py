"""Golden prompts through a server's completions, and what is said of one that continues them otherwise."""

from collections.abc import Mapping

import msgspec
import pytest

from functions.generate.handler import build_router
from pilotlight.api.router import Router
from pilotlight.client.client import Client, RawResponse
from pilotlight.doctor.finding import CheckResult, run_check
from pilotlight.doctor.golden_prompts import GoldenPromptChecks
from pilotlight.doctor.inference import InferenceChecks
from pilotlight.registry.registry import Registry
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.settings import Settings
from tests import fakes
from tests.language_model_versions import publish_scripted


class RouterClient(Client):
    """A client whose requests a router answers, without a connection."""

    def __init__(self, router: Router, spoil: bytes = b"") -> None:
        super().__init__("http://127.0.0.1:9")
        self._router = router
        self._spoil = spoil  # is answered instead

    def send_request(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> RawResponse:
        if self._spoil:
            return RawResponse(200, {}, self._spoil, 0.0)
        answer = self._router(fakes.event([target], method, target, body, headers), None)
        return RawResponse(answer["statusCode"], {}, answer["body"].encode(), 0.0)


def create_client(registry: Registry, spoil: bytes = b"") -> RouterClient:
    settings = Settings(store="memory://", call_seconds=-1)
    manager = ModelManager.from_settings(settings, registry.store, generates_text=True)
    return RouterClient(build_router(settings, manager), spoil)


def check(registry: Registry | None, client: Client) -> CheckResult:
    (found,) = map(run_check, GoldenPromptChecks(client, registry).list_checks())
    return found


def test_language_models_that_continue_as_recorded_pass(registry: Registry) -> None:
    fakes.publish(registry)
    publish_scripted(registry)
    found = check(registry, create_client(registry))
    assert (found.state, found.said) == ("passes", "3 prompts of 1 language models are continued as recorded.")


def test_one_that_continues_otherwise_is_told_with_both_texts(registry: Registry) -> None:
    publish_scripted(registry, ("Lyon", " is", "."), recorded=("Paris", " is", "."))
    found = check(registry, create_client(registry))
    assert found.state == "fails"
    assert "is continued with 'Lyon is." in found.said
    assert "recorded as 'Paris is." in found.said


@pytest.mark.parametrize("spoil", [b"no JSON", msgspec.json.encode({"choices": []})])
def test_an_answer_that_is_none_is_told(registry: Registry, spoil: bytes) -> None:
    publish_scripted(registry)
    found = check(registry, create_client(registry, spoil))
    assert found.state == "fails"
    assert "The answer to golden prompt 1 is no completion" in found.said


def test_without_language_models_or_a_store_nothing_is_checked(registry: Registry) -> None:
    assert check(registry, create_client(registry)).state == "not checked"
    assert check(None, create_client(registry)).state == "not checked"


def test_golden_requests_are_not_looked_for_in_language_models(registry: Registry) -> None:
    publish_scripted(registry)
    checks = {one.name: one for one in InferenceChecks(create_client(registry), registry).list_checks()}
    assert run_check(checks["golden requests"]).said == "No champion has golden requests."
