"""Triton's generate extension: a text is continued as it stands, whole or in pieces."""

import json
from typing import Any

import httpx2
import pytest

from functions.generate.triton_endpoints import TritonEndpoints
from pilotlight.api.generation_errors import choose_error_formatter
from tests.endpoint_transport import FakeGenerationService, build_transport
from tests.fake_language_model import BEGIN_TOKEN, FakeLanguageModel

PATH = "/v2/models/chat/generate"


def post(model: FakeLanguageModel, path: str, body: Any) -> httpx2.Response:  # noqa: ANN401 - any JSON
    service: Any = FakeGenerationService(model)
    transport = build_transport(TritonEndpoints(service).routes(), choose_error_formatter=choose_error_formatter)
    with httpx2.Client(transport=transport, base_url="http://pilotlight") as client:
        return client.post(path, json=body)


def read_frames(answer: httpx2.Response) -> list[Any]:
    return [json.loads(frame.removeprefix("data: ")) for frame in answer.text.removesuffix("\n\n").split("\n\n")]


@pytest.mark.parametrize("path", [PATH, "/v2/models/chat/versions/1/generate"])
def test_a_text_is_continued_without_a_template(path: str) -> None:
    model = FakeLanguageModel([" upon", " a", " time"])
    answer = post(model, path, {"text_input": "Once", "id": "7", "parameters": {"temperature": 0, "stop": "X"}})
    assert answer.json() == {
        "model_name": "chat", "model_version": "1", "text_output": " upon a time", "id": "7",
    }  # fmt: skip
    request = model.requests[0]
    assert request.prompt == (BEGIN_TOKEN, *b"Once")
    assert (request.sampling.temperature, request.stop_strings, request.max_tokens) == (0, ("X",), 16)
    assert model.generations[0].is_closed


def test_a_stream_has_the_pieces() -> None:
    body = {"text_input": "Once", "max_tokens": 2, "return_finish_reason": True, "stop_words": ["X"]}
    frames = read_frames(post(FakeLanguageModel([" upon", " a", " time"]), f"{PATH}_stream", body))
    assert [frame["text_output"] for frame in frames] == [" upon", " a", ""]
    assert [frame["finish_reason"] for frame in frames] == [None, None, "length"]


def test_the_input_comes_along_if_it_is_asked_for() -> None:
    body = {"text_input": "Once", "parameters": {"exclude_input_in_output": False}}
    assert post(FakeLanguageModel([" upon"]), PATH, body).json()["text_output"] == "Once upon"
    frames = read_frames(post(FakeLanguageModel([" upon"]), f"{PATH}_stream", body))
    assert [frame["text_output"] for frame in frames] == ["Once", " upon"]


def test_a_failure_in_the_middle_of_a_stream_is_its_last_frame() -> None:
    model = FakeLanguageModel([" upon", " a"], fail_after=1)
    frames = read_frames(post(model, f"{PATH}_stream", {"text_input": "Once"}))
    assert list(frames[-1]) == ["error"]
    assert model.generations[0].is_closed


def test_null_is_as_if_a_field_were_absent() -> None:
    body = {"text_input": "Once", "parameters": None, "id": None, "max_tokens": None, "stop": None}
    assert post(FakeLanguageModel([" upon"]), PATH, body).json()["text_output"] == " upon"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "text_input"),
        ({"text_input": 3}, "text_input"),
        ({"text_input": "x", "max_tokens": 0}, "max_tokens"),
        ({"text_input": "x", "parameters": {"temperature": -1}}, "parameters.temperature"),
        ({"text_input": "x" * 2000}, "2,001 tokens"),
    ],
)
def test_what_cannot_be_continued_is_refused_in_tritons_form(body: Any, words: str) -> None:  # noqa: ANN401 - any JSON
    answer = post(FakeLanguageModel(["a"]), PATH, body)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["error"]
