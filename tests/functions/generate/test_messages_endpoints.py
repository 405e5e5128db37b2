"""/v1/messages in Anthropic's form: blocks, events with names, and errors; its own client is tried in conformance."""

import json
from typing import Any

import httpx2
import pytest

from functions.generate.messages_endpoints import MessagesEndpoints
from pilotlight.api import chat_generation
from pilotlight.api.conversation import OutputPlan
from pilotlight.api.generation_errors import choose_error_formatter
from tests.endpoint_transport import FakeGenerationService, build_transport
from tests.fake_language_model import FakeLanguageModel
from tests.functions.generate.marked_calls import MarkReader

HELLO = {"role": "user", "content": "Hi"}
WEATHER = {"name": "get_weather", "description": "The weather.", "input_schema": {"type": "object", "properties": {}}}
CALLED = [
    {"role": "user", "content": [{"type": "text", "text": "Weather?", "cache_control": {"type": "ephemeral"}}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "x"},
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Bern"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "rain"}]},
            {"type": "text", "text": "And now?"},
        ],
    },
]


@pytest.fixture
def marked_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tools be called by marks in the script."""
    monkeypatch.setattr(chat_generation, "plan_output", lambda *_: OutputPlan(None, MarkReader))


def post(model: FakeLanguageModel, path: str = "/v1/messages", **fields: Any) -> httpx2.Response:  # noqa: ANN401 - of the body
    routes = MessagesEndpoints(FakeGenerationService(model)).routes()  # type: ignore[arg-type]
    transport = build_transport(routes, choose_error_formatter=choose_error_formatter)
    body = {"model": "chat", "max_tokens": 100, "messages": [HELLO], **fields}
    with httpx2.Client(transport=transport, base_url="http://pilotlight") as client:
        return client.post(path, json=body)


def create(model: FakeLanguageModel, **fields: Any) -> Any:  # noqa: ANN401 - any JSON
    answer = post(model, **fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def stream(model: FakeLanguageModel, **fields: Any) -> list[Any]:  # noqa: ANN401 - of the body
    """The events of a stream, each under the name that is its type."""
    answer = post(model, stream=True, **fields)
    assert answer.status_code == 200, answer.text
    events = []
    for frame in answer.text.removesuffix("\n\n").split("\n\n"):
        name, data = frame.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def test_a_text_is_one_block_with_usage() -> None:
    model = FakeLanguageModel(["Hello", " world"], cached_tokens=5)
    message = create(model, system="Be brief.", temperature=0.2, top_k=3, stop_sequences=["X"])
    prompt = len("<system>Be brief.<user>Hi<assistant>") + 1  # with the begin token
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "chat",
        "content": [{"type": "text", "text": "Hello world"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": prompt - 5,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 5,
            "output_tokens": 2,
        },
    }
    request = model.requests[0]
    assert (request.sampling.temperature, request.sampling.top_k) == (0.2, 3)
    assert (request.stop_strings, request.max_tokens) == (("X",), 100)
    assert model.generations[0].is_closed


def test_a_stream_has_anthropics_events_in_order() -> None:
    events = stream(FakeLanguageModel(["Hello", " world"]))
    assert [event["type"] for event in events] == [
        "message_start", "ping", "content_block_start", "content_block_delta", "content_block_delta",
        "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    assert events[0]["message"]["content"] == []
    assert events[0]["message"]["stop_reason"] is None
    assert events[0]["message"]["usage"]["input_tokens"] > 0
    assert [event["delta"]["text"] for event in events[3:5]] == ["Hello", " world"]
    assert events[6]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[6]["usage"]["output_tokens"] == 2


def test_the_limit_of_tokens_and_a_stop_string_are_told() -> None:
    assert create(FakeLanguageModel(["a", "b"]), max_tokens=1)["stop_reason"] == "max_tokens"
    message = create(FakeLanguageModel(["a"], stop="END"), stop_sequences=["END"])
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "END")


@pytest.mark.usefixtures("marked_calls")
def test_calls_are_blocks_with_their_input() -> None:
    model = FakeLanguageModel(["Let me see.", "!get_weather", '{"city":', '"Bern"}', "!get_weather"])
    message = create(model, tools=[WEATHER])
    text, first, second = message["content"]
    assert text["text"] == "Let me see."
    assert (first["type"], first["name"], first["input"]) == ("tool_use", "get_weather", {"city": "Bern"})
    assert (second["id"], second["input"]) == ("call_2", {})
    assert message["stop_reason"] == "tool_use"
    events = stream(model, tools=[WEATHER])
    started = [event for event in events if event["type"] == "content_block_start"]
    assert [(event["index"], event["content_block"]["type"]) for event in started] == [
        (0, "text"), (1, "tool_use"), (2, "tool_use"),
    ]  # fmt: skip
    pieces = [event["delta"]["partial_json"] for event in events if "partial_json" in event.get("delta", {})]
    assert "".join(pieces) == '{"city":"Bern"}'


@pytest.mark.usefixtures("marked_calls")
def test_results_of_tools_come_before_the_users_text() -> None:
    model = FakeLanguageModel(["ok"])
    create(model, messages=CALLED, tools=[WEATHER])
    user, assistant, result, question = model.rendered_messages
    assert user["content"] == "Weather?"
    assert assistant["content"] == "Let me see."
    assert assistant["tool_calls"][0]["id"] == "t1"
    assert (result["role"], result["tool_call_id"], result["content"]) == ("tool", "t1", "rain")
    assert question["content"] == "And now?"


def test_the_assistants_last_message_is_continued() -> None:
    model = FakeLanguageModel([" world"])
    message = create(model, messages=[HELLO, {"role": "assistant", "content": "Hello"}])
    assert message["content"][0]["text"] == " world"
    assert model.prompt.endswith("<user>Hi<assistant>Hello")


def test_tokens_are_counted_without_generating() -> None:
    model = FakeLanguageModel(["ok"])
    answer = post(model, "/v1/messages/count_tokens", system=[{"type": "text", "text": "S"}])
    assert answer.json() == {"input_tokens": len("<system>S<user>Hi<assistant>") + 1}
    assert model.requests == []


def test_a_failure_in_the_middle_of_a_stream_is_an_error_event() -> None:
    model = FakeLanguageModel(["Hello", " world"], fail_after=1)
    events = stream(model)
    assert events[-1]["type"] == "error"
    assert events[-1]["error"]["type"] == "api_error"
    assert model.generations[0].is_closed


def test_a_message_that_breaks_off_is_an_error() -> None:
    model = FakeLanguageModel(["Hello"], breaks_off=True)
    assert stream(model)[-1]["error"]["type"] == "overloaded_error"
    assert post(model).status_code == 503


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "robot"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "image"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t9"}]}]}, "t9"),
        ({"messages": [HELLO, {"role": "assistant", "content": [{"type": "tool_use", "id": "t"}]}]}, "id or name"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search_20250305"),
        ({"tool_choice": {"type": "any"}}, "no tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "other"}}, "get_weather"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ({"output_config": {"format": {"type": "text"}}}, "json_schema"),
        ({"temperature": 1.5}, "temperature"),
        ({"messages": [{"role": "user", "content": "x" * 2000}]}, "2,018 tokens"),
    ],
)
def test_what_is_not_served_is_refused_in_anthropics_form(fields: dict[str, Any], words: str) -> None:
    answer = post(FakeLanguageModel(["ok"]), **fields)
    assert answer.status_code == 400, answer.text
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert words in answer.json()["error"]["message"]
