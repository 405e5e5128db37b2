"""/v1/responses and /v1/messages over a graph that follows a script: prompts, calls of tools and JSON as served."""

import json
from typing import Any

import httpx2
import openai
import pydantic
import pytest

from functions.generate.messages_endpoints import MessagesEndpoints
from functions.generate.responses_endpoints import ResponsesEndpoints
from pilotlight.api.generation_errors import choose_error_formatter
from pilotlight.generation.chat_template import ChatTemplate
from pilotlight.generation.language_model import LanguageModel
from tests.endpoint_transport import FakeGenerationService, build_transport
from tests.scripted_model import CHAT_TEMPLATE, ScriptedModel

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bern"}}\n</tool_call>'
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": True}


class City(pydantic.BaseModel):
    """What the caller wants to be answered."""

    name: str
    people: int


def open_model(text: str) -> LanguageModel:
    """A model that writes the text, byte by byte."""
    scripted = ScriptedModel.build([bytes([byte]) for byte in text.encode()], context_length=4096)
    return scripted.open(chat_template=ChatTemplate(CHAT_TEMPLATE))


def open_http(model: LanguageModel) -> httpx2.Client:
    service: Any = FakeGenerationService(model)
    routes = {**ResponsesEndpoints(service).routes(), **MessagesEndpoints(service).routes()}
    transport = build_transport(routes, choose_error_formatter=choose_error_formatter)
    return httpx2.Client(transport=transport, base_url="http://pilotlight")


def connect(model: LanguageModel) -> openai.OpenAI:
    return openai.OpenAI(
        base_url="http://pilotlight/v1",
        api_key="none",
        http_client=open_http(model),
        max_retries=0,
        _strict_response_validation=True,
    )


def test_a_text_is_the_script_plain_and_streamed() -> None:
    client = connect(open_model("Grüße aus 東京 😀"))
    assert client.responses.create(model="chat", input="Hi", temperature=0).output_text == "Grüße aus 東京 😀"
    with client.responses.stream(model="chat", input="Hi", temperature=0) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert stream.get_final_response().output_text == "".join(deltas) == "Grüße aus 東京 😀"
    assert all("\ufffd" not in delta for delta in deltas)


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "name": "get_weather"}])
def test_a_function_is_called(choice: Any) -> None:  # noqa: ANN401 - of the request
    client = connect(open_model(CALL))
    fields: dict[str, Any] = {"input": "Weather?", "tools": [WEATHER], "tool_choice": choice, "temperature": 0}
    (call,) = client.responses.create(model="chat", **fields).output
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Bern"})
    with client.responses.stream(model="chat", **fields) as stream:
        pieces = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
    assert json.loads("".join(pieces)) == {"city": "Bern"}


def test_no_function_is_called_if_none_may_be() -> None:
    fields: dict[str, Any] = {"input": "Weather?", "tools": [WEATHER], "tool_choice": "none", "temperature": 0}
    assert connect(open_model("It rains.")).responses.create(model="chat", **fields).output_text == "It rains."


def test_an_answer_in_json_is_parsed_by_the_client() -> None:
    client = connect(open_model('{"name": "Bern", "people": 133000}'))
    response = client.responses.parse(model="chat", input="Which city?", text_format=City, temperature=0)
    assert response.output_parsed == City(name="Bern", people=133000)


def test_json_is_forced_whatever_the_model_would_say() -> None:
    client = connect(open_model("I would rather talk. " * 20))
    form = {"type": "json_schema", "name": "x", "schema": {"type": "boolean"}}
    fields: dict[str, Any] = {"input": "Which city?", "text": {"format": form}, "temperature": 0}
    text = client.responses.create(model="chat", **fields).output_text
    assert json.loads(text) in (True, False)


def test_a_message_calls_a_tool() -> None:
    tool = {"name": "get_weather", "input_schema": PARAMETERS}
    body = {"model": "chat", "max_tokens": 200, "messages": [{"role": "user", "content": "Weather?"}], "temperature": 0}
    with open_http(open_model(CALL)) as client:
        answer = client.post("/v1/messages", json={**body, "tools": [tool], "tool_choice": {"type": "any"}})
    assert answer.status_code == 200, answer.text
    (block,) = answer.json()["content"]
    assert (block["type"], block["name"], block["input"]) == ("tool_use", "get_weather", {"city": "Bern"})
    assert answer.json()["stop_reason"] == "tool_use"


def test_special_tokens_of_the_prompt_are_tokens() -> None:
    body = {"model": "chat", "messages": [{"role": "user", "content": "Hi"}]}
    with open_http(open_model("x")) as client:
        answer = client.post("/v1/messages/count_tokens", json=body)
    marks, texts = 3, len("user\nHi\nassistant\n")
    assert answer.json() == {"input_tokens": marks + texts}
