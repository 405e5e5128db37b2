"""Chat bodies of any kind, through the function's own handler to the real engine: never a failure of ours."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from functions.generate.handler import build_generate_handler
from pilotlight.api.router import Router
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.functions.generate.chat_bodies import CHAT_BODIES, COMPLETION_BODIES
from tests.language_model_versions import publish_scripted


@pytest.fixture(scope="module")
def handle(tmp_path_factory: pytest.TempPathFactory) -> Router:
    store = str(tmp_path_factory.mktemp("fuzzing") / "store")
    publish_scripted(Registry(open_store(store)))
    return build_generate_handler(Settings(store=store, call_seconds=-1))


def post(handle: Router, path: str, body: Any) -> tuple[int, bytes]:  # noqa: ANN401 - any JSON
    """Send a body; return the status and the whole answer, of which a stream's frames are read to the end."""
    answer = handle(fakes.event(handle._routes, "POST", path, json.dumps(body).encode()), None)
    content = answer["body"]
    if isinstance(content, str):
        return answer["statusCode"], content.encode()
    try:
        return answer["statusCode"], b"".join(content)
    finally:
        content.close()


def check_answer(status: int, content: bytes) -> None:
    assert status in (200, 400, 413), content
    if content.startswith(b"data: "):
        assert content.endswith(b"data: [DONE]\n\n")
        assert b'"server_error"' not in content
        assert b'"finish_reason":"' in content or b'"error"' in content
    else:
        assert isinstance(json.loads(content), dict)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=CHAT_BODIES)
def test_no_chat_body_is_a_failure_of_ours(handle: Router, body: dict[str, Any]) -> None:
    check_answer(*post(handle, "/v1/chat/completions", {"model": "chat", **body}))


@settings(max_examples=50)
@given(body=COMPLETION_BODIES)
def test_no_completion_body_is_a_failure_of_ours(handle: Router, body: dict[str, Any]) -> None:
    check_answer(*post(handle, "/v1/completions", {"model": "chat", **body}))


@pytest.mark.slow
@settings(max_examples=5_000)
@given(body=CHAT_BODIES)
def test_five_thousand_chat_bodies_are_no_failure_of_ours(handle: Router, body: dict[str, Any]) -> None:
    check_answer(*post(handle, "/v1/chat/completions", {"model": "chat", **body}))


@settings(max_examples=100)
@given(content=st.binary(max_size=60))
def test_no_bytes_are_a_failure_of_ours(handle: Router, content: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"):
        answer = handle(fakes.event(handle._routes, "POST", path, content), None)
        assert answer["statusCode"] == 400
        assert json.loads(answer["body"])["error"]["message"]


def test_the_store_is_where_the_handler_looks(tmp_path: Path) -> None:
    empty = build_generate_handler(Settings(store=str(tmp_path), call_seconds=-1))
    status, content = post(
        empty, "/v1/chat/completions", {"model": "chat", "messages": [{"role": "user", "content": "x"}]}
    )
    assert (status, json.loads(content)["error"]["code"]) == (404, "model_not_found")
