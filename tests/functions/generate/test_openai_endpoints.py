"""Chats, completions and tokens by the unmodified openai client, which checks every answer against its own types."""

import json
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.generate.openai_endpoints import OpenAIEndpoints
from pilotlight.api import chat_generation
from pilotlight.api.chat_completions import build_conversation, decode_chat_body
from pilotlight.api.conversation import OutputPlan
from pilotlight.api.openai_errors import to_openai_error
from tests.endpoint_transport import FakeGenerationService, build_transport
from tests.fake_language_model import BEGIN_TOKEN, FakeLanguageModel
from tests.functions.generate.marked_calls import MarkReader

HELLO = {"role": "user", "content": "Hi"}
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CHAT_PROMPT = b"<user>Hi<assistant>"


@pytest.fixture
def marked_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tools be called by marks in the script."""
    monkeypatch.setattr(chat_generation, "plan_output", lambda *_: OutputPlan(None, MarkReader))


def open_http(model: FakeLanguageModel) -> httpx2.Client:
    routes = OpenAIEndpoints(FakeGenerationService(model)).routes()  # type: ignore[arg-type]
    transport = build_transport(routes, error_formatter=to_openai_error)
    return httpx2.Client(transport=transport, base_url="http://pilotlight")


def connect(model: FakeLanguageModel, *, strict: bool = True) -> openai.OpenAI:
    return openai.OpenAI(
        base_url="http://pilotlight/v1",
        api_key="none",
        http_client=open_http(model),
        max_retries=0,
        _strict_response_validation=strict,
    )


def post(model: FakeLanguageModel, path: str, body: Any) -> tuple[int, Any]:  # noqa: ANN401 - any JSON
    answer = open_http(model).post(path, json=body)
    return answer.status_code, answer.json()


def stream_frames(model: FakeLanguageModel, path: str, body: dict[str, Any]) -> list[Any]:
    """The frames of a stream as JSON; the last, [DONE], is checked and left out."""
    answer = open_http(model).post(path, json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *frames, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


def stream_chat(model: FakeLanguageModel, **fields: Any) -> list[Any]:  # noqa: ANN401 - any field
    return stream_frames(model, "/v1/chat/completions", {"model": "chat", "messages": [HELLO], **fields})


def test_a_chat_is_answered_with_the_whole_usage() -> None:
    model = FakeLanguageModel(["Hello", " world"], cached_tokens=3)
    answer = connect(model).chat.completions.create(model="chat", messages=[{"role": "user", "content": "Hi"}])
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason, choice.index) == ("Hello world", "stop", 0)
    assert (choice.message.role, choice.message.tool_calls, choice.logprobs) == ("assistant", None, None)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(CHAT_PROMPT) + 1
    assert answer.usage.completion_tokens == 2
    assert answer.usage.total_tokens == len(CHAT_PROMPT) + 3
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 3
    assert (answer.model, answer.system_fingerprint) == ("chat", "fp_chat_1")
    assert answer.id.startswith("chatcmpl-")
    assert model.requests[0].prompt == (BEGIN_TOKEN, *CHAT_PROMPT)
    assert model.requests[0].max_tokens == 1000 - len(CHAT_PROMPT) - 1  # what is left of the context
    assert model.generations[0].is_closed


def test_a_stream_has_its_chunks_in_order() -> None:
    frames = stream_chat(FakeLanguageModel(["Hello", " world"]), stream_options={"include_usage": True})
    assert [frame["choices"] for frame in frames] == [
        [{"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "Hello"}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {"content": " world"}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop", "stop_reason": None}],
        [],
    ]
    assert [frame["usage"] for frame in frames[:-1]] == [None] * 4
    assert frames[-1]["usage"]["total_tokens"] == len(CHAT_PROMPT) + 3
    assert len({frame["id"] for frame in frames}) == 1


def test_without_include_usage_no_chunk_has_usage() -> None:
    assert all("usage" not in frame for frame in stream_chat(FakeLanguageModel(["Hello"])))


def test_the_client_reads_a_stream() -> None:
    stream = connect(FakeLanguageModel(["Hello", " world"])).chat.completions.create(
        model="chat", messages=[{"role": "user", "content": "Hi"}], stream=True, n=2
    )
    texts = ["", ""]
    reasons: list[str | None] = [None, None]
    for chunk in stream:
        assert len(chunk.choices) == 1
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
        reasons[chunk.choices[0].index] = chunk.choices[0].finish_reason or reasons[chunk.choices[0].index]
    assert texts == ["Hello world"] * 2
    assert reasons == ["stop", "stop"]


def test_n_choices_are_numbered() -> None:
    answer = connect(FakeLanguageModel(["a"])).chat.completions.create(
        model="chat", messages=[{"role": "user", "content": "Hi"}], n=3
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_limit_of_tokens_has_two_names(name: str) -> None:
    status, answer = post(
        FakeLanguageModel(["a", "b", "c"]), "/v1/chat/completions", {"model": "m", "messages": [HELLO], name: 2}
    )
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == "ab"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2


def test_logprobs_have_true_bytes() -> None:
    answer = connect(FakeLanguageModel(["é"])).chat.completions.create(
        model="chat", messages=[{"role": "user", "content": "Hi"}], logprobs=True, top_logprobs=2
    )
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.content is not None
    token = answer.choices[0].logprobs.content[0]
    assert (token.token, token.bytes, token.logprob) == ("é", [0xC3, 0xA9], -0.5)
    assert [top.bytes for top in token.top_logprobs] == [[0xC3, 0xA9]] * 2


def test_a_stream_has_the_logprobs_of_the_plain_answer() -> None:
    frames = stream_chat(FakeLanguageModel(["a", "b"]), logprobs=True)
    tokens = [
        token["token"] for frame in frames for token in (frame["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert tokens == ["a", "b"]


@pytest.mark.usefixtures("marked_calls")
def test_tool_calls_have_their_own_finish_reason() -> None:
    model = FakeLanguageModel(["!get_weather", '{"city":', '"Bern"}'])
    answer = connect(model).chat.completions.create(
        model="chat",
        messages=[{"role": "user", "content": "Hi"}],
        tools=[TOOL],  # type: ignore[list-item]
    )
    message = answer.choices[0].message
    assert (message.content, answer.choices[0].finish_reason) == (None, "tool_calls")
    assert message.tool_calls is not None
    call = message.tool_calls[0]
    assert call.type == "function"
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "get_weather", '{"city":"Bern"}')


@pytest.mark.usefixtures("marked_calls")
def test_streamed_tool_calls_have_an_index_always_and_a_name_once() -> None:
    frames = stream_chat(FakeLanguageModel(["!get_weather", '{"city":', '"Bern"}']), tools=[TOOL])
    assert [frame["choices"][0]["delta"] for frame in frames] == [
        {"role": "assistant", "content": ""},
        {
            "tool_calls": [
                {"index": 0, "function": {"arguments": "", "name": "get_weather"}, "id": "call_1", "type": "function"}
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Bern"}'}}]},
        {},
    ]
    assert frames[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_messages_become_what_templates_know() -> None:
    model = FakeLanguageModel(["a"])
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "system", "content": "Be kind."},
    ]
    status, _ = post(model, "/v1/chat/completions", {"model": "m", "messages": messages})
    assert status == 200
    assert model.prompt == ('<system>Be brief.\n\nBe kind.<user>one\ntwo<assistant>f{"x": 1}<tool>3<assistant>')


def test_the_engine_gets_every_field() -> None:
    model = FakeLanguageModel(["a"])
    body = {
        "model": "m", "messages": [HELLO], "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": -1,
        "presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.5, "logit_bias": {"65": -100},
        "stop": "x", "stop_token_ids": [3], "min_tokens": 1, "max_tokens": 9, "ignore_eos": True,
        "include_stop_str_in_output": True, "n": 2, "prompt_lookup": True, "user": "u", "unknown": 1, "store": False,
        "metadata": {"a": "b"}, "tool_choice": None, "response_format": {"type": "text"}, "stream_options": None,
    }  # fmt: skip
    status, _ = post(model, "/v1/chat/completions", body)
    assert status == 200
    request = model.requests[0]
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 5, 0.1)
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty) == (1, -1, 1.5)
    assert (sampling.logit_bias, sampling.seed) == ({65: -100}, 2**63 - 1)
    assert (request.stop_strings, request.stop_tokens, request.min_tokens, request.max_tokens) == (("x",), (3,), 1, 9)
    assert (request.ignore_end, request.include_stop_string, request.choices) == (True, True, 2)
    assert request.prompt_lookup


def test_the_last_message_is_continued_and_echoed() -> None:
    model = FakeLanguageModel([" world"])
    messages = [HELLO, {"role": "assistant", "content": "Hello"}]
    body = {"model": "m", "messages": messages, "continue_final_message": True, "echo": True}
    _, answer = post(model, "/v1/chat/completions", body)
    assert answer["choices"][0]["message"]["content"] == "Hello world"
    assert model.chat_template is not None
    assert model.chat_template.calls[0][2] == {
        "add_generation_prompt": False,
        "continue_final_message": True,
        "chat_template_kwargs": {},
    }
    frames = stream_frames(model, "/v1/chat/completions", body)
    assert [frame["choices"][0]["delta"].get("content") for frame in frames] == ["", "Hello", " world", None]


def test_token_ids_are_returned_on_request() -> None:
    _, answer = post(
        FakeLanguageModel(["a", "b"]),
        "/v1/chat/completions",
        {"model": "m", "messages": [HELLO], "return_token_ids": True},
    )
    assert answer["prompt_token_ids"] == [BEGIN_TOKEN, *CHAT_PROMPT]
    assert answer["choices"][0]["token_ids"] == [ord("a"), ord("b")]


REFUSALS: list[tuple[dict[str, Any], str | None, str | None, str]] = [
    ({"temperature": 2.5}, "temperature", None, "2.5"),
    ({"top_p": -0.1}, "top_p", None, "-0.1"),
    ({"n": 0}, "n", None, "0"),
    ({"n": 9}, "n", None, "9"),
    ({"n": 0, "stream": True}, "n", None, "0"),
    ({"max_tokens": 0}, "max_tokens", None, "0"),
    ({"max_completion_tokens": -1}, "max_completion_tokens", None, "-1"),
    ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", None, "21"),
    ({"top_logprobs": 2}, "top_logprobs", None, "logprobs"),
    ({"presence_penalty": 3}, "presence_penalty", None, "3"),
    ({"stop": ["a"] * 17}, "stop", None, "16"),
    ({"stop": [""]}, "stop[0]", None, '""'),
    ({"logit_bias": {"999": 1}}, "logit_bias", None, "999"),
    ({"stop_token_ids": [999]}, "stop_token_ids", None, "999"),
    ({"min_tokens": 5, "max_tokens": 4}, "min_tokens", None, "5"),
    ({"stream_options": {"include_usage": True}}, "stream_options", None, "stream"),
    ({"messages": []}, "messages", None, "[]"),
    ({"messages": None}, "messages", None, "null"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", None, "robot"),
    ({"messages": [{"content": "x"}]}, "messages[0].role", None, "missing"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", None, "content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content[0]",
        "unsupported_parameter",
        "image_url",
    ),
    ({"modalities": ["audio"]}, "modalities", "unsupported_parameter", "audio"),
    ({"audio": {"voice": "x"}}, "audio", "unsupported_parameter", "audio"),
    ({"web_search_options": {}}, "web_search_options", "unsupported_parameter", "web_search_options"),
    ({"functions": []}, "functions", "unsupported_parameter", "tools"),
    ({"function_call": "auto"}, "function_call", "unsupported_parameter", "tool_choice"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_parameter", "web_search"),
    ({"tool_choice": "required"}, "tool_choice", None, "required"),
    ({"tool_choice": "sometimes"}, "tool_choice", None, "sometimes"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}},
        "tool_choice",
        None,
        "other",
    ),
    ({"response_format": {"type": "yaml"}}, "response_format.type", None, "yaml"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", None, "json_schema"),
    (
        {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}},
        "structured_outputs.regex",
        None,
        "response_format",
    ),
    ({"guided_json": "{"}, "guided_json", None, "JSON"),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs", None, "messages"),
    ({"continue_final_message": True}, "continue_final_message", None, "user"),
    (
        {
            "messages": [{"role": "assistant", "content": "x"}],
            "continue_final_message": True,
            "add_generation_prompt": True,
        },
        "continue_final_message",
        None,
        "add_generation_prompt",
    ),
    ({"messages": [{"role": "user", "content": "x" * 1000}]}, None, "context_length_exceeded", "1,000"),
    ({"model": "a b"}, "model", None, "a b"),
    ({"model": ""}, "model", None, '""'),
]


@pytest.mark.parametrize(("fields", "param", "code", "says"), REFUSALS, ids=[str(list(each[0])) for each in REFUSALS])
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str | None, code: str | None, says: str) -> None:
    model = FakeLanguageModel(["a"])
    status, answer = post(model, "/v1/chat/completions", {"model": "m", "messages": [HELLO], **fields})
    assert status == 400
    error = answer["error"]
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")
    assert says in error["message"]
    assert not model.requests


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"\xff", b'{"model": "m"}', b"[" * 5000])
def test_a_body_that_is_no_chat_is_refused(body: bytes) -> None:
    answer = open_http(FakeLanguageModel(["a"])).post(
        "/v1/chat/completions", content=body.decode("latin-1").encode() if body != b"\xff" else b'"\\ud800'
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_a_failure_on_the_way_is_a_frame_and_an_exception() -> None:
    model = FakeLanguageModel(["a", "b", "c"], fail_after=2)
    frames = stream_chat(model)
    assert [list(frame) for frame in frames[3:]] == [["error"]]
    assert frames[-1]["error"]["type"] == "server_error"
    with pytest.raises(openai.APIError, match="its log says why"):
        list(
            connect(model).chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}], stream=True)
        )


@pytest.mark.parametrize(
    ("path", "prompt"), [("/v1/chat/completions", {"messages": [HELLO]}), ("/v1/completions", {"prompt": "Hi"})]
)
def test_an_answer_that_breaks_off_is_not_whole(path: str, prompt: dict[str, Any]) -> None:
    body = {"model": "m", **prompt}
    status, answer = post(FakeLanguageModel(["a"], breaks_off=True), path, body)
    assert (status, answer["error"]["type"]) == (503, "server_error")
    assert "try again" in stream_frames(FakeLanguageModel(["a"], breaks_off=True), path, body)[-1]["error"]["message"]


def test_a_frame_is_one_line_for_every_client() -> None:
    """Python's `splitlines`, by which httpx reads lines, breaks them at characters that JSON does not escape."""
    text = "one\u2028two\u2029three\x85four\x0bfive"
    body = {"model": "m", "messages": [HELLO], "stream": True}
    with open_http(FakeLanguageModel([text])).stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    assert "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines) == text


def test_null_is_as_if_a_field_were_absent() -> None:
    call = {"id": None, "type": None, "function": {"name": "f", "arguments": None}}
    schema = {"name": None, "schema": {"type": "object"}, "strict": None, "description": None}
    for fields in (
        {"messages": [HELLO, {"role": "assistant", "content": None, "tool_calls": [call], "name": None}]},
        {"response_format": {"type": "json_schema", "json_schema": schema}},
        {"tools": [TOOL], "tool_choice": {"type": None, "function": {"name": "get_weather"}}},
    ):
        conversation = decode_chat_body(json.dumps({"model": "m", "messages": [HELLO], **fields}).encode())
        build_conversation(conversation)


def test_a_failure_before_the_first_token_has_its_status() -> None:
    model = FakeLanguageModel(["a"], fail_after=0)
    with pytest.raises(openai.InternalServerError):
        connect(model).chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}], stream=True)
    assert model.generations[0].is_closed


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_a_client_that_leaves_closes_the_generation(frames: int) -> None:
    model = FakeLanguageModel(["a"] * 100)
    with open_http(model).stream(
        "POST", "/v1/chat/completions", json={"model": "m", "messages": [HELLO], "stream": True}
    ) as answer:
        chunks = answer.iter_raw()
        for _ in range(frames):
            next(chunks)
    assert model.generations[0].is_closed


def complete(model: FakeLanguageModel, **fields: Any) -> Any:  # noqa: ANN401 - any JSON
    status, answer = post(model, "/v1/completions", {"model": "m", "prompt": "One", **fields})
    assert status == 200, answer
    return answer


PROMPTS: list[tuple[Any, list[tuple[int, ...]]]] = [
    ("ab", [(BEGIN_TOKEN, 97, 98)]),
    (["a", "b"], [(BEGIN_TOKEN, 97), (BEGIN_TOKEN, 98)]),
    ([97, 98], [(97, 98)]),
    ([[97], [98, 99]], [(97,), (98, 99)]),
]


@pytest.mark.parametrize(("prompt", "tokens"), PROMPTS)
def test_a_prompt_has_four_forms(prompt: Any, tokens: list[tuple[int, ...]]) -> None:  # noqa: ANN401 - any JSON
    model = FakeLanguageModel(["x", "y"])
    answer = complete(model, prompt=prompt, n=2)
    assert [request.prompt for request in model.requests] == tokens
    assert [choice["index"] for choice in answer["choices"]] == list(range(2 * len(tokens)))
    assert {choice["text"] for choice in answer["choices"]} == {"xy"}
    assert answer["usage"]["prompt_tokens"] == sum(map(len, tokens))
    assert answer["usage"]["completion_tokens"] == 4 * len(tokens)
    frames = stream_frames(model, "/v1/completions", {"model": "m", "prompt": prompt, "n": 2})
    texts = [""] * 2 * len(tokens)
    for frame in frames:
        texts[frame["choices"][0]["index"]] += frame["choices"][0]["text"]
    assert set(texts) == {"xy"}
    assert [frame["choices"][0]["finish_reason"] for frame in frames].count("stop") == len(texts)


def test_completions_have_sixteen_tokens_unless_told() -> None:
    answer = complete(FakeLanguageModel(["x"] * 100))
    assert (len(answer["choices"][0]["text"]), answer["choices"][0]["finish_reason"]) == (16, "length")


def test_the_client_reads_completions() -> None:
    answer = connect(FakeLanguageModel(["x", "y"])).completions.create(model="m", prompt="One", logprobs=1, n=2)
    choice = answer.choices[1]
    assert (choice.text, choice.finish_reason, choice.index) == ("xy", "stop", 1)
    assert choice.logprobs is not None
    assert (choice.logprobs.tokens, choice.logprobs.text_offset) == (["x", "y"], [0, 1])
    assert choice.logprobs.top_logprobs == [{"x": -0.5}, {"y": -0.5}]


def test_the_client_reads_a_stream_of_completions() -> None:
    """Its types do not allow that a chunk has no finish reason, which OpenAI's own have not either."""
    client = connect(FakeLanguageModel(["x", "y"]), strict=False)
    streamed = client.completions.create(model="m", prompt="One", stream=True, stream_options={"include_usage": True})
    chunks = list(streamed)
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == "xy"
    assert (chunks[-1].choices, chunks[-1].usage is not None) == ([], True)


def test_an_echo_with_logprobs_scores_the_prompt() -> None:
    model = FakeLanguageModel(["x"])
    answer = complete(model, prompt=[79, 110], echo=True, logprobs=1, max_tokens=0)
    logprobs = answer["choices"][0]["logprobs"]
    assert answer["choices"][0]["text"] == "On"
    assert logprobs["tokens"] == ["O", "n"]
    assert logprobs["token_logprobs"] == [None, -1.0]
    assert logprobs["text_offset"] == [0, 1]
    assert answer["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 0,
        "total_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert not model.requests


def test_offsets_are_those_of_the_text() -> None:
    """The begin token is none of the text's, and characters of several tokens count once."""
    model = FakeLanguageModel(["!"])
    body = {"model": "m", "prompt": "aé😀b", "echo": True, "logprobs": 0, "max_tokens": 1}
    _, answer = post(model, "/v1/completions", body)
    choice = answer["choices"][0]
    assert choice["text"] == "aé😀b!"
    assert choice["logprobs"]["tokens"][0] == "<begin>"
    assert choice["logprobs"]["text_offset"] == [0, 0, 1, 1, 2, 2, 2, 2, 3, 4]


COMPLETION_REFUSALS: list[tuple[dict[str, Any], str | None, str | None]] = [
    ({"suffix": "x"}, "suffix", "unsupported_parameter"),
    ({"best_of": 3}, "best_of", "unsupported_parameter"),
    ({"max_tokens": 0}, "max_tokens", None),
    ({"prompt": []}, "prompt", None),
    ({"prompt": [1, "a"]}, "prompt", None),
    ({"prompt": [[]]}, "prompt", None),
    ({"prompt": [1000]}, "prompt", None),
    ({"prompt": [-1]}, "prompt", None),
    ({"prompt": ["a"] * 129}, "prompt", None),
    ({"prompt": None}, "prompt", None),
    ({"logprobs": 21}, "logprobs", None),
    ({"prompt": "x" * 1000}, None, "context_length_exceeded"),
]


@pytest.mark.parametrize(("fields", "param", "code"), COMPLETION_REFUSALS)
def test_what_is_wrong_with_a_completion_is_named(fields: dict[str, Any], param: str | None, code: str | None) -> None:
    status, answer = post(FakeLanguageModel(["a"]), "/v1/completions", {"model": "m", "prompt": "One", **fields})
    assert (status, answer["error"]["param"], answer["error"]["code"]) == (400, param, code)


def test_texts_become_tokens_and_texts_again() -> None:
    model = FakeLanguageModel(["a"])
    status, answer = post(model, "/tokenize", {"model": "m", "prompt": "Hé", "return_token_strs": True})
    assert status == 200
    assert answer["tokens"] == [BEGIN_TOKEN, 72, 0xC3, 0xA9]
    assert (answer["count"], answer["max_model_len"], len(answer["token_strs"])) == (4, 1000, 4)
    _, plain = post(model, "/tokenize", {"model": "m", "prompt": "Hé", "add_special_tokens": False})
    assert plain["tokens"] == [72, 0xC3, 0xA9]
    _, chat = post(model, "/tokenize", {"model": "m", "messages": [HELLO]})
    assert chat["tokens"] == [BEGIN_TOKEN, *CHAT_PROMPT]
    assert post(model, "/detokenize", {"model": "m", "tokens": [72, 0xC3, 0xA9]}) == (200, {"prompt": "Hé"})


@pytest.mark.parametrize("body", [{}, {"prompt": "a", "messages": [HELLO]}])
def test_tokenize_takes_a_prompt_or_messages(body: dict[str, Any]) -> None:
    assert post(FakeLanguageModel(["a"]), "/tokenize", {"model": "m", **body})[0] == 400


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant", "tool", "developer", "x"])},
        optional={"content": JSON_VALUES | st.text(max_size=9), "tool_calls": JSON_VALUES, "name": JSON_VALUES},
    )
    | JSON_VALUES,
    max_size=4,
)
FIELDS = (
    "temperature", "top_p", "n", "max_tokens", "max_completion_tokens", "stop", "seed", "stream", "stream_options",
    "logprobs", "top_logprobs", "logit_bias", "presence_penalty", "frequency_penalty", "response_format", "tools",
    "tool_choice", "parallel_tool_calls", "user", "metadata", "top_k", "min_p", "repetition_penalty", "stop_token_ids",
    "min_tokens", "ignore_eos", "include_stop_str_in_output", "chat_template_kwargs", "add_generation_prompt",
    "continue_final_message", "echo", "structured_outputs", "guided_json", "guided_regex", "return_token_ids",
    "reasoning_effort", "modalities", "audio", "functions", "unknown",
)  # fmt: skip
LIKELY = st.sampled_from([0, 1, 2, 0.5, True, False, None, "auto", "none", ["a"], {"include_usage": True}])


@settings(max_examples=300)
@given(
    messages=MESSAGES,
    fields=st.dictionaries(st.sampled_from(FIELDS), LIKELY | JSON_VALUES, max_size=6),
)
def test_no_chat_body_is_a_failure_of_ours(messages: list[Any], fields: dict[str, Any]) -> None:
    body = {"model": "m", "messages": messages, **fields}
    answer = open_http(FakeLanguageModel(["a", "b"])).post("/v1/chat/completions", content=json.dumps(body).encode())
    assert answer.status_code in (200, 400, 501), answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        assert answer.text.endswith("data: [DONE]\n\n")
        assert '"error"' not in answer.text
    else:
        assert isinstance(answer.json(), dict)
