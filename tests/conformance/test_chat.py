"""OpenAI's chats and completions by its unmodified client, against the local gateway and the real engine.

The client checks every answer against its own types. The models are scripted: what they say is known.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pydantic
import pytest

from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.language_model_versions import build_scripted, describe_scripted, publish_scripted
from tests.scripted_model import CHAT_TEMPLATE, Part

ROOT = Path(__file__).parents[2]
EMOJI: tuple[Part, ...] = ("h", "i", b"\xf0", b"\x9f", b"\x98", b"\x80")
HELLO: Any = [{"role": "user", "content": "Hi"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 10}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def publish_without_golden(registry: Registry, name: str, script: tuple[Part, ...], **options: Any) -> None:  # noqa: ANN401
    """Publish a scripted model that no golden prompt checks."""
    scripted = build_scripted(script, **options)
    files = {
        "model.onnx": scripted.graph,
        "tokenizer.json": scripted.tokenizer_json.encode(),
        "chat_template.jinja": CHAT_TEMPLATE.encode(),
    }
    registry.publish_version(describe_scripted(scripted, name), files)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = str(tmp_path_factory.mktemp("conformance") / "store")
    registry = Registry(open_store(store))
    publish_scripted(registry)
    publish_without_golden(registry, "emoji", EMOJI)
    publish_without_golden(registry, "alphabet", ("D", "E", "F", "G", "H", "I", "J", "K"))
    publish_without_golden(registry, "question", ("Why", "?", "\n"))
    publish_without_golden(registry, "broken", ("a", "b", "c", "d"), fail_after=2)
    publish_without_golden(registry, "flat", tuple("abcdefgh"), margin=0.0, context_length=4096)
    fakes.publish(registry)
    variables = {"PILOTLIGHT_STORE": store, "PILOTLIGHT_CALL_SECONDS": "-1"}
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment=variables)
    with gateway.serve_in_background() as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, _strict_response_validation=True) as opened:
        yield opened


def read_stream(client: openai.OpenAI, **fields: Any) -> tuple[str, str | None, Any]:  # noqa: ANN401 - the client's
    """The text, the finish reason and the usage of a stream."""
    text, reason, usage = "", None, None
    options: Any = {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}, **fields}
    for chunk in client.chat.completions.create(**options):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            assert reason is None, "a chunk came behind the finish reason"
            text += choice.delta.content or ""
            reason = choice.finish_reason
    return text, reason, usage


def test_models_tell_their_context(client: openai.OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert {"chat", "emoji"} <= set(models)
    assert "double" not in models  # which no route of OpenAI's answers for
    extra: Any = models["chat"]
    assert (extra.max_model_len, extra.context_length, extra.task) == (512, 512, "generation")


@pytest.mark.parametrize("name", ["chat", "chat:1", "chat@champion"])
def test_a_model_has_three_kinds_of_names(client: openai.OpenAI, name: str) -> None:
    assert client.models.retrieve(name).id == name
    answer = client.chat.completions.create(model=name, messages=HELLO)
    assert (answer.choices[0].message.content, answer.model) == ("Paris is the capital.", name)


def test_a_stream_is_the_plain_answer(client: openai.OpenAI) -> None:
    plain = client.chat.completions.create(model="chat", messages=HELLO)
    text, reason, usage = read_stream(client, model="chat")
    assert (text, reason) == (plain.choices[0].message.content, plain.choices[0].finish_reason)
    assert plain.usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (plain.usage.prompt_tokens, plain.usage.completion_tokens)


@pytest.mark.parametrize("limit", range(1, 8))
def test_there_are_whole_characters_only(client: openai.OpenAI, limit: int) -> None:
    """generation.md, 9, 1: the limit may cut a character."""
    plain = client.chat.completions.create(model="emoji", messages=HELLO, max_tokens=limit)
    choice = plain.choices[0]
    assert choice.message.content == ("h", "hi", "hi", "hi", "hi", "hi😀", "hi😀")[limit - 1]
    assert choice.finish_reason == ("stop" if limit == 7 else "length")
    assert plain.usage is not None
    assert plain.usage.completion_tokens == limit
    assert read_stream(client, model="emoji", max_tokens=limit)[:2] == (choice.message.content, choice.finish_reason)


STOPS = [
    ("alphabet", "DEFGHIJ", "", "stop", "DEFGHIJ"),
    ("alphabet", ["GH", "FG"], "DE", "stop", "FG"),
    ("alphabet", "KL", "DEFGHIJK", "stop", None),  # its beginning is held, and released at the end
    ("question", "\n", "Why?", "stop", "\n"),
    ("chat", "the capital of", "Paris is the capital.", "stop", None),
]


@pytest.mark.parametrize(("model", "stop", "text", "reason", "stopped_by"), STOPS)
def test_stop_strings_are_found_across_tokens(
    client: openai.OpenAI,
    model: str,
    stop: Any,  # noqa: ANN401 - as sent
    text: str,
    reason: str,
    stopped_by: str | None,
) -> None:
    plain: Any = client.chat.completions.create(model=model, messages=HELLO, stop=stop).choices[0]
    assert (plain.message.content, plain.finish_reason, plain.stop_reason) == (text, reason, stopped_by)
    assert read_stream(client, model=model, stop=stop)[:2] == (text, reason)


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "x" * 600}], stream=True)
    assert refused.value.code == "context_length_exceeded"
    assert "619 tokens" in str(refused.value)
    assert "512 tokens" in str(refused.value)


def test_a_limit_beyond_the_context_is_that_of_the_context(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="chat", messages=HELLO, max_tokens=10_000)
    assert answer.choices[0].finish_reason == "stop"


def test_seeds_hold_and_differ(client: openai.OpenAI) -> None:
    def draw(seed: int) -> list[str | None]:
        answer = client.chat.completions.create(model="flat", messages=HELLO, seed=seed, n=3, max_tokens=12)
        return [choice.message.content for choice in answer.choices]

    first = draw(42)
    assert len(set(first)) == 3
    assert draw(42) == first
    assert draw(43) != first


def test_logprobs_have_the_bytes_of_parts_of_characters(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="emoji", messages=HELLO, logprobs=True, top_logprobs=1, temperature=0)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert bytes(byte for token in logprobs.content for byte in token.bytes or ()) == "hi😀".encode()
    assert [token.top_logprobs[0].bytes for token in logprobs.content] == [token.bytes for token in logprobs.content]


class City(pydantic.BaseModel):
    """What a structured answer is parsed into."""

    name: str = pydantic.Field(max_length=8)
    size: int = pydantic.Field(ge=0, le=9)


def test_an_answer_is_parsed_into_a_model(client: openai.OpenAI) -> None:
    """The model draws any byte; the constraint alone makes it JSON."""
    for seed in range(3):
        answer = client.chat.completions.parse(model="flat", messages=HELLO, response_format=City, seed=seed)
        assert isinstance(answer.choices[0].message.parsed, City)
        assert answer.choices[0].finish_reason == "stop"


def test_structured_outputs_are_what_they_must_be(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"model": "flat", "messages": HELLO, "seed": 1}
    chosen = client.chat.completions.create(**fields, extra_body={"structured_outputs": {"choice": ["yes", "no"]}})
    assert chosen.choices[0].message.content in ("yes", "no")
    matched = client.chat.completions.create(**fields, extra_body={"guided_regex": "[0-9]{3}-x"})
    text = matched.choices[0].message.content or ""
    assert (text[:3].isdigit(), text[3:]) == (True, "-x")


def test_a_schema_that_does_not_compile_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="cannot be compiled"):
        client.chat.completions.create(
            model="chat", messages=HELLO, extra_body={"structured_outputs": {"regex": "[a"}}, stream=True
        )


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_tool_that_must_be_called_is_called(client: openai.OpenAI, choice: Any) -> None:  # noqa: ANN401 - as sent
    answer = client.chat.completions.create(
        model="flat", messages=HELLO, tools=[WEATHER], tool_choice=choice, seed=5, parallel_tool_calls=False
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.tool_calls is not None
    (call,) = answer.choices[0].message.tool_calls
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city"}


def test_a_streamed_call_is_the_plain_one(client: openai.OpenAI) -> None:
    fields: Any = {
        "model": "flat", "messages": HELLO, "tools": [WEATHER], "tool_choice": "required", "seed": 5,
        "parallel_tool_calls": False,
    }  # fmt: skip
    calls: Any = client.chat.completions.create(**fields).choices[0].message.tool_calls
    (plain,) = calls
    assert plain.type == "function"
    with client.chat.completions.stream(**fields) as stream:
        calls = stream.get_final_completion().choices[0].message.tool_calls
    (streamed,) = calls
    assert streamed.function.arguments == plain.function.arguments


def test_a_failure_on_the_way_is_an_exception(client: openai.OpenAI) -> None:
    texts = []
    with pytest.raises(openai.APIError):  # noqa: PT012 - on the way
        for chunk in client.chat.completions.create(model="broken", messages=HELLO, stream=True):
            texts += [choice.delta.content for choice in chunk.choices if choice.delta.content]
    assert texts == ["a", "b"]
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="broken", messages=HELLO)
    assert client.chat.completions.create(model="chat", messages=HELLO).choices  # and the server goes on


def test_a_client_that_leaves_does_not_stop_the_next(client: openai.OpenAI) -> None:
    for _ in range(5):
        stream = client.chat.completions.create(
            model="chat", messages=HELLO, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        stream.close()
    assert client.chat.completions.create(model="chat", messages=HELLO).choices[0].finish_reason == "stop"


def test_a_second_turn_knows_the_first(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "One question"}])
    turns: Any = [
        {"role": "user", "content": "One question"},
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "Another"},
    ]
    second = client.chat.completions.create(model="chat", messages=turns)
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    assert (second.usage.prompt_tokens_details.cached_tokens or 0) > len("One question")


REFUSED = [
    ("nothing", openai.NotFoundError, "model_not_found"),
    ("chat:9", openai.NotFoundError, "model_not_found"),
    ("chat@nobody", openai.NotFoundError, "model_not_found"),
    ("double", openai.BadRequestError, None),
    ("a b", openai.BadRequestError, None),
]


@pytest.mark.parametrize(("name", "kind", "code"), REFUSED)
def test_a_model_that_cannot_answer_is_told(
    client: openai.OpenAI, name: str, kind: type[openai.APIStatusError], code: str | None
) -> None:
    for stream in (False, True):
        with pytest.raises(kind) as refused:
            client.chat.completions.create(model=name, messages=HELLO, stream=stream)
        assert refused.value.code == code


def test_a_model_of_another_kind_names_its_route(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="/v2/models/double/infer"):
        client.chat.completions.create(model="double", messages=HELLO)


def test_completions_continue_texts_and_tokens(client: openai.OpenAI) -> None:
    for prompt in ("Where?", [87, 104], ["a", "b"]):
        answer = client.completions.create(model="chat", prompt=prompt)
        assert {choice.text for choice in answer.choices} == {"Paris is the capital."}
    scored = client.completions.create(model="chat", prompt="Where?", logprobs=2, temperature=0)
    logprobs = scored.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["Paris", " is", " the", " capital", "."]
    assert logprobs.text_offset == [0, 5, 8, 12, 20]


def test_texts_become_tokens_and_texts_again(url: str) -> None:
    with httpx2.Client(base_url=url) as http:
        tokens = http.post("/tokenize", json={"model": "chat", "prompt": "Hé"}).json()
        assert (tokens["tokens"], tokens["max_model_len"]) == ([72, 0xC3, 0xA9], 512)
        assert http.post("/detokenize", json={"model": "chat", "tokens": tokens["tokens"]}).json() == {"prompt": "Hé"}
        chat = http.post("/tokenize", json={"model": "chat", "messages": HELLO, "return_token_strs": True}).json()
        assert "".join(chat["token_strs"]) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
