"""Chats through the function's own handler to the real engine, with a deadline, and with clients that leave."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from functions.generate.handler import build_generate_handler
from pilotlight.api.router import Router
from pilotlight.observability import emf
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.language_model_versions import build_scripted, describe_scripted, publish_scripted
from tests.scripted_model import CHAT_TEMPLATE

HELLO = [{"role": "user", "content": "Hi"}]


class LambdaContext:
    """What Lambda tells of a call: how long it may take."""

    def __init__(self, milliseconds: int) -> None:
        self._milliseconds = milliseconds

    def get_remaining_time_in_millis(self) -> int:
        return self._milliseconds


@pytest.fixture(scope="module")
def handle(tmp_path_factory: pytest.TempPathFactory) -> Router:
    store = str(tmp_path_factory.mktemp("chats") / "store")
    publish_scripted(Registry(open_store(store)), context_length=100_000)
    return build_generate_handler(Settings(store=store, call_seconds=-1))


def call(handle: Router, context: object = None, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - of the body
    body = {"model": "chat", "messages": HELLO, **fields}
    return handle(fakes.event(handle._routes, "POST", "/v1/chat/completions", json.dumps(body).encode()), context)


def read_frames(chunks: Iterator[bytes]) -> list[Any]:
    return [json.loads(chunk.removeprefix(b"data: ")) for chunk in chunks if chunk != b"data: [DONE]\n\n"]


@pytest.mark.parametrize("stream", [False, True])
def test_the_deadline_ends_an_answer_as_its_limit_does(handle: Router, stream: bool) -> None:
    call(handle)  # opens the model
    answer = call(handle, LambdaContext(1_600), stream=stream, ignore_eos=True)
    if stream:
        frames = read_frames(answer["body"])
        assert frames[-1]["choices"][0]["finish_reason"] == "length"
        text = "".join(frame["choices"][0]["delta"].get("content", "") for frame in frames)
    else:
        choice = json.loads(answer["body"])["choices"][0]
        assert choice["finish_reason"] == "length"
        text = choice["message"]["content"]
    assert text.startswith("Paris is the capital.")


def test_a_stream_has_its_headers_before_its_text(handle: Router) -> None:
    answer = call(handle, stream=True)
    assert answer["statusCode"] == 200
    assert answer["headers"]["content-type"] == "text/event-stream; charset=utf-8"
    assert answer["headers"]["x-pilotlight-version"] == "1"
    assert float(answer["headers"]["x-pilotlight-usd-per-second"]) > 0
    assert read_frames(answer["body"])[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("frames", [0, 1, 3])
def test_a_client_that_leaves_frees_the_model(handle: Router, frames: int) -> None:
    before = threading.active_count()
    for _ in range(20):
        chunks = call(handle, stream=True, ignore_eos=True, n=2)["body"]
        for _ in range(frames):
            next(chunks)
        chunks.close()
    assert call(handle)["statusCode"] == 200
    assert threading.active_count() <= before + 1


def test_errors_keep_their_status_on_a_streamed_route(handle: Router) -> None:
    for fields, status in (({"n": 0}, 400), ({"model": "nothing"}, 404)):
        answer = call(handle, stream=True, **fields)
        assert answer["statusCode"] == status
        assert json.loads(answer["body"])["error"]["message"]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The lines of the usage log."""
    lines: list[Any] = []
    monkeypatch.setattr(emf, "write_line", lambda line: lines.append(json.loads(line)))
    return lines


def test_the_time_of_an_answer_is_that_of_inference(tmp_path: Path, written: list[Any]) -> None:
    publish_scripted(Registry(open_store(str(tmp_path))))
    handle = build_generate_handler(Settings(store=str(tmp_path), call_seconds=0))
    plain = call(handle)["headers"]["server-timing"]
    streamed = call(handle, stream=True)
    list(streamed["body"])
    for timing in (plain, streamed["headers"]["server-timing"]):
        assert re.findall(r"(\w+);", timing)[:2] == ["load", "infer"]
    assert [(line["status"], "InferMs" in line) for line in written] == [(200, True)] * 2


def test_a_stream_that_fails_on_the_way_is_logged_as_a_failure(tmp_path: Path, written: list[Any]) -> None:
    """Its status was sent before, so that alarms know of it by the log alone."""
    scripted = build_scripted(("a", "b", "c"), fail_after=1)
    files = {
        "model.onnx": scripted.graph,
        "tokenizer.json": scripted.tokenizer_json.encode(),
        "chat_template.jinja": CHAT_TEMPLATE.encode(),
    }
    Registry(open_store(str(tmp_path))).publish_version(describe_scripted(scripted, "chat"), files)
    handle = build_generate_handler(Settings(store=str(tmp_path), call_seconds=0))
    answer = call(handle, stream=True)
    assert answer["statusCode"] == 200
    assert "error" in read_frames(answer["body"])[-1]
    assert (written[-1]["status"], written[-1]["ServerErrors"]) == (500, 1)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v2/models/chat/generate"])
def test_bodies_may_be_compressed(handle: Router, path: str) -> None:
    body = json.dumps({"model": "chat", "messages": HELLO, "max_tokens": 100, "text_input": "Hi"}).encode()

    def send(content: bytes, encoding: str) -> tuple[int, str]:
        headers = {"content-encoding": encoding}
        answer = handle(fakes.event(handle._routes, "POST", path, content, headers), None)
        return answer["statusCode"], answer["body"]

    assert send(gzip.compress(body), "gzip")[0] == 200
    for content, encoding, status in (
        (body, "gzip", 400),
        (body, "br", 415),
        (gzip.compress(b" " * 7_000_000), "gzip", 413),
    ):
        found, text = send(content, encoding)
        assert (found, "error" in json.loads(text)) == (status, True)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/completions", {"prompt": ["a", "b"], "echo": True, "logprobs": 0, "max_tokens": 0}),
        ("/v1/decisions", {"input": "x", "questions": [{"type": "predicate", "instructions": "Is it wet?"}]}),
    ],
)
def test_runs_of_prompts_end_with_the_time(handle: Router, path: str, fields: dict[str, Any]) -> None:
    """They generate nothing, so that no engine watches the time."""
    body = json.dumps({"model": "chat", **fields}).encode()
    event = fakes.event(handle._routes, "POST", path, body)
    assert handle(event, LambdaContext(100_000))["statusCode"] == 200
    assert handle(event, LambdaContext(0))["statusCode"] == 504
