import json
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotlight.errors import InvalidInputError, PilotlightError, TooLargeError
from pilotlight.generation.chat_template import ChatTemplate

FOLDER = Path(__file__).parent / "chat_templates"
RECORDED = json.loads((FOLDER / "renderings.json").read_text())
CONVERSATIONS: dict[str, dict[str, Any]] = RECORDED["conversations"]
CASES = [(template, conversation) for template in RECORDED["renderings"] for conversation in CONVERSATIONS]
# These come out otherwise than in transformers on purpose: a developer's role no template here knows, a second system
# message that a template leaves out, and parts where a template wants text. So do texts where one wants parts, and
# calls where one knows none.
ADAPTED = {"developer", "parts", "partsystem", "two_systems"}
CHATML = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
USER = {"role": "user", "content": "u"}


@cache
def read_template(name: str) -> ChatTemplate:
    return ChatTemplate((FOLDER / f"{name}.jinja").read_text(), RECORDED["special_tokens"])


@pytest.mark.parametrize(("name", "conversation"), CASES)
def test_the_prompt_is_that_of_transformers(name: str, conversation: str) -> None:
    options = {"tools": None, "add_generation_prompt": True, **CONVERSATIONS[conversation]}
    messages = options.pop("messages")
    expected = RECORDED["renderings"][name][conversation]
    template = read_template(name)
    if "continue_final_message" in options:
        if "text" in expected:
            assert template.render(messages, **options) == expected["text"]
    elif "error" in expected:
        with pytest.raises(InvalidInputError) as caught:
            template.render_exactly(messages, **options)
        assert expected["error"].rstrip(".") in str(caught.value)
    else:
        assert template.render_exactly(messages, **options) == expected["text"]
        has_calls = any("tool_calls" in message for message in messages)
        if conversation not in ADAPTED and name != "parts" and (template.takes_tool_calls or not has_calls):
            assert template.render(messages, **options) == expected["text"]


UNKNOWN = {("parts", "continue")}  # ends a line behind each text, so that none can be continued


@pytest.mark.parametrize(("name", "conversation"), [case for case in CASES if case not in UNKNOWN])
def test_every_conversation_has_a_prompt_with_all_its_text(name: str, conversation: str) -> None:
    options = dict(CONVERSATIONS[conversation])
    messages = options.pop("messages")
    prompt = read_template(name).render(messages, **options)
    for message in messages:
        content = message.get("content") or "" if "tool_calls" not in message else ""  # which some templates leave out
        texts = [content] if isinstance(content, str) else [part["text"] for part in content]
        assert all(text.strip() in prompt for text in texts)


def test_a_template_that_refuses_gets_systems_in_one_first_message() -> None:
    refusing = (
        "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('too late') }}"
        "{% endif %}{{ m.role }}:{{ m.content }};{% endfor %}"
    )
    messages = [{"role": "developer", "content": "A"}, USER, {"role": "system", "content": "B"}]
    assert ChatTemplate(refusing).render(messages) == "system:A\n\nB;user:u;"


def test_systems_stay_where_they_are_if_the_template_takes_them() -> None:
    messages = [{"role": "system", "content": "A"}, USER, {"role": "system", "content": "B"}]
    assert ChatTemplate(CHATML).render(messages) == "<system>A</system><user>u</user><system>B</system>"


def test_a_system_message_that_would_be_dropped_reaches_the_prompt() -> None:
    dropping = "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    messages = [{"role": "developer", "content": "Be brief"}, USER]
    assert ChatTemplate(dropping).render(messages) == "<user>Be brief\n\nu"


def test_a_template_that_knows_developers_gets_them() -> None:
    knowing = "{% for m in messages %}{{ 'D' if m.role == 'developer' else 'x' }}{{ m.content }}{% endfor %}"
    assert ChatTemplate(knowing).render([{"role": "developer", "content": "a"}]) == "Da"


def test_users_in_a_row_become_one_where_turns_must_alternate() -> None:
    prompt = read_template("alternating").render([USER, {"role": "user", "content": "v"}], add_generation_prompt=False)
    assert prompt == "<s><turn>user\nu\n\nv</turn>\n"


def test_what_cannot_be_rewritten_is_refused_in_the_templates_words() -> None:
    messages = [{"role": "assistant", "content": "a"}, USER]
    with pytest.raises(InvalidInputError, match="After the user comes the model, and after the model the user"):
        read_template("alternating").render(messages)


def test_arguments_are_mappings_for_the_template() -> None:
    call = {"id": "1", "function": {"name": "f", "arguments": '{"a": "é"}'}}
    text = "{% for m in messages %}{{ m.tool_calls[0].function.arguments | tojson }}{% endfor %}"
    assert ChatTemplate(text).render([{"role": "assistant", "tool_calls": [call]}]) == '{"a": "é"}'


def test_several_calls_become_several_answers_where_one_is_taken_at_a_time() -> None:
    options = CONVERSATIONS["called2"]
    prompt = read_template("single_call").render(options["messages"], tools=options["tools"])
    first, second = prompt.index('{"name": "get_weather", "parameters"'), prompt.index('{"name": "add", "parameters"')
    assert first < prompt.index("<|header|>tool<|body|>3") < second < prompt.index("<|header|>tool<|body|>4")


def test_results_follow_their_calls_in_the_order_of_the_calls() -> None:
    calls = [{"id": f"{i}", "function": {"name": f"f{i}", "arguments": {}}} for i in range(3)]
    results = [{"role": "tool", "tool_call_id": f"{i}", "content": f"r{i}"} for i in (2, 0)]
    called: dict[str, Any] = {"role": "assistant", "content": "Hm", "tool_calls": calls}
    messages = [USER, called, *results, USER]
    prompt = ChatTemplate(
        "{% for m in messages %}{% if m.tool_calls | default([]) | length > 1 %}{{ raise_exception('one') }}{% endif %}"
        "[{{ m.content }}{% for c in m.tool_calls %}{{ c.function.name }}{% endfor %}]{% endfor %}"
    ).render(messages)
    assert prompt == "[u][Hmf0][r0][f1][f2][r2][u]"


def test_calls_and_results_are_text_where_the_template_has_none() -> None:
    options = CONVERSATIONS["called"]
    prompt = read_template("alternating").render(options["messages"], add_generation_prompt=False)
    assert prompt == (
        "<s><turn>user\nw?</turn>\n"
        '<turn>model\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln"}}\n</tool_call></turn>\n'
        '<turn>user\n<tool_response>\n{"t": 3}\n</tool_response></turn>\n'
    )


def test_foreign_ids_of_calls_are_shortened_for_mistral() -> None:
    call = {"id": "call_0123456789", "type": "function", "function": {"name": "f", "arguments": {}}}
    result = {"role": "tool", "tool_call_id": "call_0123456789", "content": "3"}
    prompt = read_template("mistral_nemo").render([USER, {"role": "assistant", "tool_calls": [call]}, result])
    shortened = prompt.split('"id": "')[1].split('"')[0]
    assert len(shortened) == 9
    assert prompt.count(shortened) == 2


def test_the_date_is_todays() -> None:
    assert ChatTemplate("{{ strftime_now('%Y') }}").render([USER]) == str(datetime.now().year)  # noqa: DTZ005


def test_variables_of_the_caller_reach_the_template_and_may_not_replace_the_requests() -> None:
    template = ChatTemplate("{{ mood }}{{ bos_token }}", {"bos_token": "<s>"})
    assert template.render([USER], chat_template_kwargs={"mood": "calm"}) == "calm<s>"
    with pytest.raises(InvalidInputError, match="may not have messages, tools"):
        template.render([USER], chat_template_kwargs={"messages": [], "tools": []})


def test_a_part_that_is_no_text_is_refused_by_its_type() -> None:
    with pytest.raises(InvalidInputError, match="part of type 'image_url'"):
        read_template("smollm2").render([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])


def test_nothing_to_say_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="There are no messages"):
        ChatTemplate(CHATML).render([])


@pytest.mark.parametrize("text", ["{% if %}", "{{ raise_exception( }}", "{% for %}", "{% generation %}"])
def test_a_template_that_is_no_jinja_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        ChatTemplate(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'a' * 10000000000 }}",
        "{{ [1] * 10000000000 }}",
        "{{ 10 ** 10000000000 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% set n = namespace(__class__=1) %}",
        "{{ range(100000000) | list }}",
        "{{ 1 / 0 }}",
        "{{ undefined_thing.attribute }}",
        "{{ messages[9].content.x }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    ],
)
def test_what_a_template_may_not_do_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        ChatTemplate(text).render([USER])


def test_a_prompt_without_end_is_cut_off() -> None:
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{{ 'x' * 1000 }}{% endfor %}{% endfor %}"
    with pytest.raises(TooLargeError, match="more than 16,000,000 characters"):
        ChatTemplate(endless).render([USER])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["content", "tool_calls", "tool_call_id", "name", "reasoning_content"])
ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool", "other", 1, None])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.builds(lambda role, rest: {**rest, "role": role}, ROLES, st.dictionaries(FIELDS, JSON)), max_size=4),
    st.sampled_from(sorted(RECORDED["renderings"])),
    st.booleans(),
)
def test_no_messages_make_another_error(messages: list[dict[str, Any]], name: str, continues: bool) -> None:
    with suppress(PilotlightError):
        assert isinstance(read_template(name).render(messages, continue_final_message=continues), str)
