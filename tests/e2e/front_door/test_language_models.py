"""Chats by the unmodified openai client on each server: plain, streamed, with a tool, and as JSON of a schema."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.e2e.front_door.differences import expect_difference
from tests.e2e.front_door.server import TIMEOUT_S, Server

ANSWER = "Paris is the capital."
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER: Any = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS, "strict": True}}


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    key = server.key or "none"
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=TIMEOUT_S) as connected:
        yield connected


@pytest.fixture(autouse=True)
def difference(request: pytest.FixtureRequest, server: Server) -> None:
    expect_difference(request, server.kind)


def test_a_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="chat", messages=QUESTION, temperature=0)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (ANSWER, "stop")
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


def test_a_streamed_chat_comes_in_frames(client: openai.OpenAI) -> None:
    options: Any = {"stream_options": {"include_usage": True}}
    stream = client.chat.completions.create(model="chat", messages=QUESTION, temperature=0, stream=True, **options)
    assert stream.response.headers["content-type"].partition(";")[0] == "text/event-stream"
    chunks = list(stream)
    texts = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert len(texts) > 1
    assert "".join(texts) == ANSWER
    assert chunks[-1].usage is not None


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v2/models/chat/generate_stream"])
def test_frames_are_sent_while_the_text_is_written(server: Server, path: str) -> None:
    """In chunks, where an answer that is sent whole has its length in a header."""
    body = {"model": "chat", "messages": QUESTION, "stream": True, "text_input": "Capital?"}
    answer = server.ask("POST", path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.text.startswith("data: ")
    assert "content-length" not in answer.headers


def test_a_tool_is_called(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="calling", messages=QUESTION, tools=[WEATHER], temperature=0)
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Bern"})


@pytest.mark.parametrize("model", ["telling", "chat"])
def test_an_answer_is_json_of_the_schema(client: openai.OpenAI, model: str) -> None:
    """Whatever the model would say."""
    schema = {**PARAMETERS, "properties": {"city": {"enum": ["Bern", "Lyon"]}}}
    form: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}}
    answer = client.chat.completions.create(model=model, messages=QUESTION, response_format=form, temperature=0)
    city = json.loads(answer.choices[0].message.content or "")["city"]
    assert city in ({"Bern"} if model == "telling" else {"Bern", "Lyon"})


def test_a_model_that_is_no_language_model_is_told(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="digits", messages=QUESTION)
