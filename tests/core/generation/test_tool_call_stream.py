import json
from collections.abc import Sequence
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotlight.generation.tool_call_formats import (
    HERMES,
    HERMES_LIST,
    LLAMA,
    MISTRAL,
    MISTRAL_NAMED,
    PHI,
    ToolCallFormat,
    detect_format,
)
from pilotlight.generation.tool_call_stream import ToolCallStream, create_call_id
from pilotlight.generation.tools import CallPiece, MessagePiece, TextPiece

NAMES = ("add", "add_all", "weather")
FORMATS = {
    "hermes": HERMES,
    "list": HERMES_LIST,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "named": MISTRAL_NAMED,
    "phi": PHI,
}
Call = tuple[str, dict[str, Any]]


def create_stream(form: ToolCallFormat, *, is_forced: bool = False) -> ToolCallStream:
    numbers = count()
    return ToolCallStream(form, NAMES, is_forced=is_forced, create_id=lambda: f"id{next(numbers)}")


def write(form: ToolCallFormat, calls: Sequence[Call]) -> str:
    """Write calls as the models of a format do."""
    if form.name_end is not None:
        return "".join(f"{form.opening}{name}{form.name_end}{json.dumps(arguments)}" for name, arguments in calls)
    written = [json.dumps({"name": name, form.arguments_key: arguments}) for name, arguments in calls]
    if form.is_list:
        return f"{form.opening}[{', '.join(written)}]{form.closing}"
    return "\n".join(f"{form.opening}{form.before}{each}{form.after}{form.closing}" for each in written)


def split(text: str, cuts: Sequence[int]) -> list[str]:
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(places)]


def collect(stream: ToolCallStream, pieces: Sequence[str]) -> tuple[str, list[tuple[str | None, str | None, str]]]:
    """Feed pieces; return content and calls as a client puts them together."""
    deltas: list[MessagePiece] = [delta for piece in pieces for delta in stream.read(piece)]
    deltas += stream.finish()
    content, calls = "", list[tuple[str | None, str | None, str]]()
    for delta in deltas:
        if isinstance(delta, TextPiece):
            content += delta.text
        elif delta.index == len(calls):
            assert delta.id is not None and delta.name is not None and not delta.arguments  # noqa: PT018
            calls.append((delta.id, delta.name, ""))
        else:
            assert delta.index == len(calls) - 1
            assert delta.id is None
            calls[-1] = (*calls[-1][:2], calls[-1][2] + delta.arguments)
    assert content == stream.content
    assert calls == [(call.id, call.name, call.arguments) for call in stream.tool_calls]
    return content, calls


@pytest.mark.parametrize("is_forced", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_calls_are_found_behind_text(name: str, is_forced: bool) -> None:
    form = FORMATS[name]
    calls: list[Call] = [("weather", {"city": 'K"ö{}ln', "at": [1, {"x": None}]})]
    if not form.is_single:
        calls.append(("add", {}))
    content, found = collect(create_stream(form, is_forced=is_forced), ["Let me see.\n" + write(form, calls)])
    assert content == "Let me see."
    assert [(name, json.loads(arguments)) for _, name, arguments in found] == calls
    assert [identifier for identifier, _, _ in found] == [f"id{i}" for i in range(len(calls))]


PIECES = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "<tool", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", "<|tool_call|>"),
        *("<|/tool_call|>", '{"name": "add", "arguments": {"a": 1}}', '{"name": "add", "parameters": {"a": "}"}}'),
        *('{"arguments": {}, "name": "add"}', '{"name": "add", "arguments": "{\\"a\\": 1}"}', '{"name": "weather"'),
        *('{"name": "other", "arguments": {}}', '{"a": 1}', "add", "add_all", "{", "}", "[", "]", ",", '"', "\\"),
        *(" ", "\n", "  \n", "text", "é😀", "<", ":", "1"),
    ]
)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(PIECES, max_size=12).map("".join),
    st.lists(st.integers(0, 200), max_size=12),
    st.sampled_from(list(FORMATS)),
    st.booleans(),
)
def test_it_does_not_matter_where_the_text_is_split(text: str, cuts: list[int], name: str, is_forced: bool) -> None:
    whole = collect(create_stream(FORMATS[name], is_forced=is_forced), [text])
    assert collect(create_stream(FORMATS[name], is_forced=is_forced), split(text, cuts)) == whole
    assert collect(create_stream(FORMATS[name], is_forced=is_forced), list(text)) == whole


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=10).map("".join), st.sampled_from(list(FORMATS)))
def test_calls_are_valid_where_nothing_forced_them(text: str, name: str) -> None:
    stream = create_stream(FORMATS[name])
    collect(stream, list(text))
    for call in stream.tool_calls:
        assert call.name in NAMES
        assert isinstance(json.loads(call.arguments), dict)
    if not stream.tool_calls and "<|/tool_call|>" not in text and "</tool_call>" not in text:
        assert stream.content == text


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "add", "arguments": {"a": }}\n</tool_call>',
        '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "add", "arguments": [1]}\n</tool_call>',
        '<tool_call>\n{"name": "add", "arguments": {"a": 1}',
        "<tool_call>call add please</tool_call>",
        "<tool_call>",
        "a <tool_cal",
        "a < b  \n",
        "",
    ],
)
def test_what_is_no_call_stays_text(text: str) -> None:
    content, calls = collect(create_stream(HERMES), list(text))
    assert (content, calls) == (text, [])


def test_arguments_that_come_before_the_name_or_as_a_text_are_read() -> None:
    text = '<tool_call>{"arguments": "{\\"a\\": 1}", "name": "add"}</tool_call>'
    assert collect(create_stream(HERMES), list(text)) == ("", [("id0", "add", '{"a": 1}')])


def test_a_call_without_its_closing_marker_is_a_call() -> None:
    text = 'a<tool_call>{"name": "add", "arguments": {}}<tool_call>{"name": "add", "arguments": {}} b'
    assert collect(create_stream(HERMES), list(text)) == ("a b", [("id0", "add", "{}"), ("id1", "add", "{}")])


def test_forced_arguments_go_out_as_they_come() -> None:
    stream = create_stream(HERMES, is_forced=True)
    assert stream.read('<tool_call>\n{"name": "weather", "argu') == []
    assert stream.read('ments": {"ci') == [CallPiece(0, "id0", "weather"), CallPiece(0, arguments='{"ci')]
    assert stream.read('ty": "Bonn"}') == [CallPiece(0, arguments='ty": "Bonn"}')]
    assert stream.read("}\n</tool") == []
    assert stream.read("_call>") == []
    assert stream.finish() == []


def test_a_forced_call_that_ends_at_the_length_keeps_what_it_has_and_shows_no_marker() -> None:
    begun = create_stream(HERMES, is_forced=True)
    assert collect(begun, ['<tool_call>\n{"name": "add", "arguments": {"a": 1']) == ("", [("id0", "add", '{"a": 1')])
    assert collect(create_stream(HERMES, is_forced=True), ['<tool_call>\n{"name": "a']) == ("", [])


def test_text_goes_out_at_once_and_only_what_may_be_a_marker_is_held() -> None:
    stream = create_stream(HERMES)
    assert stream.read("Hello, world <") == [TextPiece("Hello, world")]
    assert stream.read("b> and <tool") == [TextPiece(" <b> and")]
    assert stream.read("s>") == [TextPiece(" <tools>")]


def test_without_tools_everything_is_text() -> None:
    text = '<tool_call>{"name": "add", "arguments": {}}</tool_call>'
    assert collect(ToolCallStream(HERMES, ()), [text]) == (text, [])


def test_a_bare_object_is_a_call_at_the_beginning_only() -> None:
    call = '{"name": "add", "parameters": {"a": 1}}'
    assert collect(create_stream(LLAMA), list(call)) == ("", [("id0", "add", '{"a": 1}')])
    assert collect(create_stream(LLAMA), list(f"JSON: {call}")) == (f"JSON: {call}", [])
    assert collect(create_stream(LLAMA), list('{"colour": "red"}')) == ('{"colour": "red"}', [])


def test_ids_have_the_form_that_the_templates_take() -> None:
    short, long = create_call_id(is_short=True), create_call_id()
    assert len(short) == 9
    assert short.isalnum()
    assert long.startswith("call_")
    assert create_call_id() != long


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("write <tool_call>\\n{...}\\n</tool_call>", HERMES),
        ("write <tool_call>[{...}]</tool_call>", HERMES_LIST),
        ("write <tool_call>\\n<function=f><parameter=x>1</tool_call>", None),
        ('with {"name": function name, "parameters": arguments}', LLAMA),
        ("{{ '[TOOL_CALLS][' }}", MISTRAL),
        ("{{ '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}", MISTRAL_NAMED),
        ("<|tool_call|> and <|/tool_call|>", PHI),
        ("{{ tools }}", None),
    ],
)
def test_the_format_is_read_in_the_template(template: str, form: ToolCallFormat | None) -> None:
    assert detect_format(template) == form
