"""/v1/responses by the unmodified openai client, which checks every answer against its own types."""

import json
from math import inf
from typing import Any

import httpx2
import openai
import pytest
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseOutputMessage

from functions.generate.responses_endpoints import ResponsesEndpoints
from pilotlight.api import chat_generation
from pilotlight.api.conversation import ChatEvent, ContentDelta, JsonFormat, MessageEnd, OutputPlan, ToolCallDelta
from pilotlight.api.openai_errors import to_openai_error
from pilotlight.api.responses_events import ResponseWriter, create_response
from pilotlight.api.responses_request import build_conversation
from pilotlight.api.schemas.responses import ResponsesBody, ResponseTextOptions, TextFormat
from pilotlight.generation.request import ScoredToken, TokenLogprob
from tests.endpoint_transport import FakeGenerationService, build_transport
from tests.fake_language_model import FakeLanguageModel
from tests.functions.generate.marked_calls import MarkReader

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
EARLIER_CALL = [
    {"role": "user", "content": "Weather in Bern?"},
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": '{"city": "Bern"}'},
    {"type": "function_call", "call_id": "c2", "name": "get_weather", "arguments": '{"city": "Basel"}'},
    {"type": "function_call_output", "call_id": "c1", "output": "rain"},
    {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "sun"}]},
]


@pytest.fixture
def marked_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tools be called by marks in the script."""
    monkeypatch.setattr(chat_generation, "plan_output", lambda *_: OutputPlan(None, MarkReader))


def connect(model: FakeLanguageModel) -> openai.OpenAI:
    routes = ResponsesEndpoints(FakeGenerationService(model)).routes()  # type: ignore[arg-type]
    transport = build_transport(routes, error_formatter=to_openai_error)
    return openai.OpenAI(
        base_url="http://pilotlight/v1",
        api_key="none",
        http_client=httpx2.Client(transport=transport),
        max_retries=0,
        _strict_response_validation=True,
    )


def stream_events(model: FakeLanguageModel, **fields: Any) -> list[Any]:  # noqa: ANN401 - the client's
    return list(connect(model).responses.create(model="chat", stream=True, **fields))


def test_a_text_is_answered_with_usage_and_with_what_was_asked_for() -> None:
    model = FakeLanguageModel(["Hello", " world"], cached_tokens=3)
    response = connect(model).responses.create(
        model="chat", input="Hi", instructions="Be brief.", temperature=0.5, metadata={"a": "b"}, max_output_tokens=20
    )
    assert response.output_text == "Hello world"
    assert response.status == "completed"
    assert (response.instructions, response.temperature, response.metadata) == ("Be brief.", 0.5, {"a": "b"})
    assert model.rendered_messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]
    prompt = "<system>Be brief.<user>Hi<assistant>"
    assert response.usage is not None
    assert response.usage.input_tokens == len(prompt) + 1  # with the begin token
    assert response.usage.input_tokens_details.cached_tokens == 3
    assert (response.usage.output_tokens, response.usage.total_tokens) == (2, len(prompt) + 3)
    assert model.requests[0].max_tokens == 20
    assert model.requests[0].sampling.temperature == 0.5
    assert model.generations[0].is_closed


def test_a_stream_has_all_events_in_order_and_ends_in_the_plain_answer() -> None:
    events = stream_events(FakeLanguageModel(["Hello", " world"]), input="Hi")
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(10))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Hello world"
    assert events[-1].response.output_text == "Hello world"
    assert events[0].response.id == events[-1].response.id
    assert len({event.item_id for event in events[3:8]}) == 1


def test_the_limit_of_tokens_makes_a_response_incomplete() -> None:
    model = FakeLanguageModel(["one", " two", " three"])
    response = connect(model).responses.create(model="chat", input="Count", max_output_tokens=2)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output_text == "one two"
    assert stream_events(model, input="Count", max_output_tokens=2)[-1].type == "response.incomplete"


def test_no_text_is_an_empty_message() -> None:
    response = connect(FakeLanguageModel([])).responses.create(model="chat", input="Hi")
    assert len(response.output) == 1
    assert response.output_text == ""


@pytest.mark.usefixtures("marked_calls")
def test_calls_of_functions_are_items_behind_the_text() -> None:
    model = FakeLanguageModel(["Let me see.", "!get_weather", '{"city":', '"Bern"}', "!get_weather", "{}"])
    fields: dict[str, Any] = {"input": "Weather?", "tools": [WEATHER]}
    response = connect(model).responses.create(model="chat", **fields)
    message, first, second = response.output
    assert isinstance(message, ResponseOutputMessage)
    assert isinstance(first, ResponseFunctionToolCall)
    assert isinstance(second, ResponseFunctionToolCall)
    assert (first.name, first.arguments, first.call_id) == ("get_weather", '{"city":"Bern"}', "call_1")
    assert (second.arguments, second.call_id, second.status) == ("{}", "call_2", "completed")
    assert response.tools[0].model_dump(exclude_none=True) == WEATHER
    events = stream_events(model, **fields)
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert [event.arguments for event in done] == ['{"city":"Bern"}', "{}"]
    assert [event.output_index for event in done] == [1, 2]
    assert events[-1].response.output[1].arguments == first.arguments


@pytest.mark.usefixtures("marked_calls")
def test_earlier_calls_and_their_answers_reach_the_template_as_chats_have_them() -> None:
    model = FakeLanguageModel(["Rain and sun."])
    connect(model).responses.create(model="chat", input=EARLIER_CALL, tools=[WEATHER])  # type: ignore[arg-type,list-item]
    user, assistant, first, second = model.rendered_messages
    assert user["content"] == "Weather in Bern?"
    assert [call["id"] for call in assistant["tool_calls"]] == ["c1", "c2"]
    assert 'get_weather{"city": "Bern"}get_weather{"city": "Basel"}<tool>rain<tool>sun' in model.prompt
    assert (first["role"], first["name"], first["content"]) == ("tool", "get_weather", "rain")
    assert (second["tool_call_id"], second["content"]) == ("c2", "sun")


def test_developer_and_system_texts_are_one_first_message() -> None:
    model = FakeLanguageModel(["ok"])
    items = [{"role": "user", "content": "Hi"}, {"role": "developer", "content": [{"type": "input_text", "text": "B"}]}]
    connect(model).responses.create(model="chat", instructions="A", input=items)  # type: ignore[arg-type]
    assert model.prompt == "<system>A\n\nB<user>Hi<assistant>"


def test_logprobs_have_the_tokens_bytes() -> None:
    fields: dict[str, Any] = {"input": "Hi", "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    response = connect(FakeLanguageModel(["é"])).responses.create(model="chat", **fields)
    message = response.output[0]
    assert isinstance(message, ResponseOutputMessage)
    assert message.content[0].type == "output_text"
    (token,) = message.content[0].logprobs or []
    assert (token.token, token.bytes, len(token.top_logprobs)) == ("é", list("é".encode()), 2)


def test_a_failure_in_the_middle_of_a_stream_is_its_last_event() -> None:
    model = FakeLanguageModel(["Hello", " world"], fail_after=1)
    events = stream_events(model, input="Hi")
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.code == "server_error"
    assert "its log says why" in events[-1].response.error.message
    assert model.generations[0].is_closed


def test_a_response_that_breaks_off_has_failed() -> None:
    model = FakeLanguageModel(["Hello"], breaks_off=True)
    assert stream_events(model, input="Hi")[-1].type == "response.failed"
    with pytest.raises(openai.InternalServerError):
        connect(model).responses.create(model="chat", input="Hi")


def test_logprobs_of_held_tokens_come_with_the_text() -> None:
    """A token may have no whole character yet; that of a call has no place, and JSON has no infinity."""

    def score(text: str) -> ScoredToken:
        return ScoredToken(TokenLogprob(1, text, text.encode(), -inf))

    writer = ResponseWriter(create_response(ResponsesBody(model="chat", input="Hi"), "chat"))
    events: list[ChatEvent] = [
        ContentDelta(0, "", (1,), (score("a"),)),
        ContentDelta(0, "ab", (1,), (score("b"),)),
        ContentDelta(0, "", (1,), (score("c"),)),
        ToolCallDelta(0, 0, "{}", "call_1", "f"),
        ContentDelta(0, "", (1,), (score("d"),)),
        MessageEnd(0, "tool_calls"),
    ]
    told = [told for event in events for told in writer.add(event)]
    deltas = [one["logprobs"] for one in told if one["type"] == "response.output_text.delta"]
    assert [[token.token for token in logprobs] for logprobs in deltas] == [["a", "b"]]
    (done,) = [one["logprobs"] for one in told if one["type"] == "response.output_text.done"]
    assert [(token.token, token.logprob) for token in done] == [("a", -9999.0), ("b", -9999.0), ("c", -9999.0)]


@pytest.mark.parametrize(("strict", "is_strict"), [(True, True), (False, False), (None, False)])
def test_a_schema_is_strict_if_the_caller_says_so(strict: bool | None, is_strict: bool) -> None:
    """As in chats: a schema that cannot be held to exactly is then refused."""
    asked = TextFormat("json_schema", "x", {"type": "object"}, strict)
    body = ResponsesBody(model="chat", input="Hi", text=ResponseTextOptions(asked))
    assert build_conversation(body).output_format == JsonFormat({"type": "object"}, strict=is_strict)


def test_a_failure_before_the_first_token_has_a_status() -> None:
    with pytest.raises(openai.InternalServerError):
        stream_events(FakeLanguageModel(["Hello"], fail_after=0), input="Hi")


def test_leaving_a_stream_stops_the_engine() -> None:
    model = FakeLanguageModel(["word"] * 100)
    stream = connect(model).responses.create(model="chat", input="Hi", stream=True)
    next(iter(stream))
    stream.close()
    assert model.generations[0].is_closed


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"prompt": {"id": "pmpt_1"}}, "instructions"),
        ({"tools": [{"type": "web_search"}]}, "web_search"),
        ({"tool_choice": "required"}, "there are no tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "other"}}, "get_weather"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "schema"),
        ({"text": {"format": {"type": "xml"}}}, "xml"),
        ({"input": []}, "input has no message"),
        ({"input": [{"role": "robot", "content": "Hi"}]}, "robot"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input_image"),
        ({"input": [{"type": "function_call_output", "call_id": "c9", "output": "x"}]}, "c9"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "item_reference"),
        ({"input": [{"role": "user", "content": "x"}, {"type": "function_call", "call_id": "c"}]}, "call_id or name"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"input": "x" * 2000}, "2,018 tokens"),
    ],
)
def test_what_is_not_served_is_refused_with_a_sentence(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        connect(FakeLanguageModel(["ok"])).responses.create(**{"model": "chat", "input": "Hi", **fields})


def test_errors_name_the_field_and_what_is_wrong() -> None:
    client = connect(FakeLanguageModel(["ok"]))
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="chat", input="Hi", previous_response_id="resp_1")
    assert (refused.value.param, refused.value.code) == ("previous_response_id", "unsupported_parameter")
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="chat", input="x" * 2000)
    assert refused.value.code == "context_length_exceeded"


def test_null_and_unknown_fields_are_as_if_they_were_absent() -> None:
    nothing = dict.fromkeys(("tools", "tool_choice", "text", "max_output_tokens", "previous_response_id", "include"))
    fields = {"store": True, "service_tier": "auto", "reasoning": {"effort": "low"}, "quux": 1, **nothing}
    content = json.dumps({"model": "chat", "input": "Hi", **fields})
    routes = ResponsesEndpoints(FakeGenerationService(FakeLanguageModel(["ok"]))).routes()  # type: ignore[arg-type]
    with httpx2.Client(transport=build_transport(routes)) as client:
        answer = client.post("http://pilotlight/v1/responses", content=content)
    assert answer.status_code == 200, answer.text
    assert Response.model_validate(answer.json(), strict=False).output_text == "ok"
