import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pilotlight.errors import InvalidInputError
from pilotlight.generation.chat_template import ChatTemplate
from pilotlight.generation.constraints import ConstraintCompiler
from pilotlight.generation.request import TokenConstraint
from pilotlight.generation.tool_call_formats import (
    HERMES,
    HERMES_LIST,
    LLAMA,
    MISTRAL,
    MISTRAL_NAMED,
    PHI,
    ToolCallFormat,
    write_grammar,
)
from pilotlight.generation.tool_call_stream import ToolCallStream
from pilotlight.generation.tool_calls import ToolPlan, prepare_tool_use
from pilotlight.generation.tools import Tool, ToolChoice
from tests.core.generation.byte_tokenizer import END, SPECIAL, build_tokenizer

FOLDER = Path(__file__).parent / "chat_templates"
PLAIN, MARKED = build_tokenizer(), build_tokenizer(SPECIAL)  # the second has markers as special tokens
COMPILERS = {
    tokenizer: ConstraintCompiler(tokenizer.to_str(), [END], tokenizer.get_vocab_size())
    for tokenizer in (PLAIN, MARKED)
}
COMPILER = COMPILERS[PLAIN]
WEATHER = Tool(
    "weather",
    "Look up the weather",
    {"type": "object", "properties": {"city": {"$ref": "#/$defs/city"}}, "required": ["city"],
     "$defs": {"city": {"enum": ["Bonn", "Köln"]}}},
)  # fmt: skip
ADD = Tool("add", None, {"properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}, "required": ["x"]})
TOOLS = (WEATHER, ADD)
HERMES_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
ADD_CALL = '<tool_call>\n{"name": "add", "arguments": {"x": 1}}\n</tool_call>'
ANY, REQUIRED = ToolChoice(), ToolChoice("required")


def read_template(name: str) -> ChatTemplate:
    return ChatTemplate((FOLDER / f"{name}.jinja").read_text(), {"bos_token": "<s>", "eos_token": "</s>"})


def prepare(choice: ToolChoice = ANY, name: str = "qwen2.5", tools: Sequence[Tool] = TOOLS, **options: Any) -> ToolPlan:  # noqa: ANN401
    return prepare_tool_use(read_template(name), tools, choice, compiler=COMPILER, **options)


def start(plan: ToolPlan) -> TokenConstraint:
    assert plan.constraint is not None
    return plan.constraint()


def allows(plan: ToolPlan, text: str) -> bool:
    """Return whether an answer may be this text and then end."""
    constraint = start(plan)
    for token in PLAIN.encode(text).ids:
        if not constraint.compute_mask()[token]:
            return False
        constraint.accept(token)
    return bool(constraint.compute_mask()[END])


def test_a_model_that_wants_to_call_may_say_something_or_call() -> None:
    plan = prepare()
    assert allows(plan, "It is sunny <today>.")
    assert allows(plan, HERMES_CALL)
    assert allows(plan, f"Let me see.\n{HERMES_CALL}\n{ADD_CALL}")
    assert not allows(plan, '<tool_call>\n{"name": "weather", "arguments": {"city": "Rom"}}\n</tool_call>')
    assert not allows(plan, '<tool_call>\n{"name": "other", "arguments": {}}\n</tool_call>')
    assert not allows(plan, "<tool_call>")


def test_a_required_call_leaves_no_room_for_text() -> None:
    plan = prepare(REQUIRED)
    assert allows(plan, HERMES_CALL)
    assert allows(plan, f"{HERMES_CALL}\n{ADD_CALL}")
    assert not allows(plan, "")
    assert not allows(plan, f"Well: {HERMES_CALL}")


def test_a_named_tool_is_the_only_one() -> None:
    plan = prepare(ToolChoice("required", ("add",)))
    assert allows(plan, ADD_CALL)
    assert not allows(plan, HERMES_CALL)
    assert plan.template_tools == [WEATHER.describe(), ADD.describe()]


def test_one_call_at_most_if_they_are_not_parallel() -> None:
    plan = prepare(REQUIRED, is_parallel=False)
    assert allows(plan, HERMES_CALL)
    assert not allows(plan, f"{HERMES_CALL}\n{ADD_CALL}")
    assert not allows(prepare(is_parallel=False), f"{HERMES_CALL}\n{ADD_CALL}")


@pytest.mark.parametrize("plan", [prepare(ToolChoice("required", ("add",))), prepare(REQUIRED, "smollm2")])
def test_a_named_tool_is_called_once_and_so_is_any_by_an_untrained_model(plan: ToolPlan) -> None:
    constraint = start(plan)
    for token in PLAIN.encode(ADD_CALL).ids:
        constraint.accept(token)
    assert constraint.is_complete


def test_no_calls_means_no_tools() -> None:
    plan = prepare(ToolChoice("none"))
    assert plan.constraint is None
    assert plan.template_tools is None
    assert plan.create_stream().read(HERMES_CALL)[0].text == HERMES_CALL  # type: ignore[union-attr]  # it is not None


def test_arguments_have_no_names_that_the_schema_does_not_have() -> None:
    plan = prepare(REQUIRED)
    assert allows(plan, '<tool_call>\n{"name": "add", "arguments": {"x": 1, "y": 2}}\n</tool_call>')
    assert not allows(plan, '<tool_call>\n{"name": "add", "arguments": {"x": 1, "z": 2}}\n</tool_call>')


def test_an_answer_without_calls_is_held_to_its_schema() -> None:
    plan = prepare(answer_schema={"type": "object", "properties": {"t": {"type": "integer"}}, "required": ["t"]})
    assert allows(plan, '{"t": 3}')
    assert allows(plan, HERMES_CALL)
    assert not allows(plan, "It is 3")
    assert not allows(plan, f'{{"t": 3}}{HERMES_CALL}')
    assert allows(prepare(tools=(), answer_schema={"type": "integer"}), "3")


def test_a_tool_without_parameters_takes_an_empty_object() -> None:
    plan = prepare(REQUIRED, tools=[Tool("now", "The time")])
    assert allows(plan, '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>')


def test_a_schema_that_cannot_be_held_to_is_refused_if_strict_and_any_object_else() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)y"}}}
    plan = prepare(REQUIRED, tools=[Tool("look", None, parameters)])
    assert allows(plan, '<tool_call>\n{"name": "look", "arguments": {"b": [1]}}\n</tool_call>')
    with pytest.raises(InvalidInputError, match=r"The parameters of the tool 'look': .*look-around"):
        prepare(REQUIRED, tools=[Tool("look", None, parameters, strict=True)])


@pytest.mark.parametrize(
    ("choice", "tools", "message"),
    [
        (ToolChoice("required", ("sing",)), TOOLS, "tool_choice names 'sing', and the tools are weather, add"),
        (REQUIRED, (), "tool_choice requires a call, and there are no tools"),
        (ANY, (ADD, ADD), "Several tools have the name 'add'"),
    ],
)
def test_a_choice_that_cannot_be_met_is_refused(choice: ToolChoice, tools: Sequence[Tool], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        prepare(choice, tools=tools)


CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief"},
    {"role": "user", "content": "The weather?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "a", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}],
    },
    {"role": "tool", "tool_call_id": "a", "content": "rain"},
    {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "wind"}]},
]


@pytest.mark.parametrize("name", ["smollm2", "alternating", "parts"])
def test_a_template_without_tools_is_told_of_them_as_text(name: str) -> None:
    plan = prepare(name=name)
    assert plan.template_tools is None
    prompt = read_template(name).render(plan.prepare_messages(CONVERSATION), tools=plan.template_tools)
    assert json.dumps(WEATHER.describe(), ensure_ascii=False) in prompt
    assert HERMES_CALL in prompt
    assert "<tool_response>\nrain\n</tool_response>\n<tool_response>\nwind\n</tool_response>" in prompt
    assert prompt.index("Be brief") < prompt.index("<tools>") < prompt.index("The weather?")
    assert allows(plan, HERMES_CALL)


def test_a_template_with_tools_writes_them_itself() -> None:
    plan = prepare()
    assert plan.prepare_messages(CONVERSATION) == CONVERSATION
    prompt = read_template("qwen2.5").render(plan.prepare_messages(CONVERSATION), tools=plan.template_tools)
    assert json.dumps(WEATHER.describe(), ensure_ascii=False) in prompt
    assert HERMES_CALL in prompt
    assert prompt.count("<tools>") == 2  # once in the instructions


def test_without_tools_and_calls_the_messages_stay_as_they_are() -> None:
    plan = prepare(name="smollm2", tools=())
    assert plan.prepare_messages(CONVERSATION[:2]) == CONVERSATION[:2]
    assert plan.constraint is None


def test_an_unknown_form_of_calls_is_replaced_by_ours() -> None:
    template = ChatTemplate("{{ tools }}{% for m in messages %}{{ m.content }}{% endfor %}<function=x>")
    plan = prepare_tool_use(template, TOOLS, REQUIRED, compiler=COMPILER)
    assert plan.template_tools is None
    assert "<tools>" in plan.prepare_messages(CONVERSATION)[0]["content"]


FORMATS = [HERMES, HERMES_LIST, LLAMA, MISTRAL, MISTRAL_NAMED, PHI]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(FORMATS),
    st.sampled_from([PLAIN, MARKED]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_random_tokens_under_the_mask_are_valid_calls(
    form: ToolCallFormat,
    tokenizer: Any,  # noqa: ANN401
    is_required: bool,
    is_parallel: bool,
    seed: int,
) -> None:
    compiler = COMPILERS[tokenizer]
    grammar = write_grammar(form, TOOLS, compiler, is_required=is_required, is_parallel=is_parallel)
    constraint = compiler.compile_grammar(grammar)()
    generator = random.Random(seed)  # noqa: S311
    begun = [] if is_required else tokenizer.encode(form.opening if form.is_bare else "Hm " + form.opening).ids
    tokens: list[int] = []
    for i in range(300):
        allowed = np.flatnonzero(constraint.compute_mask())
        token = begun[i] if i < len(begun) else int(generator.choice(allowed))
        if token == END:
            break
        assert token in allowed
        constraint.accept(token)
        tokens.append(token)
    has_ended = len(tokens) < 300
    stream = ToolCallStream(form, [tool.name for tool in TOOLS], is_forced=True)
    for character in tokenizer.decode(tokens, skip_special_tokens=False):
        stream.read(character)
    stream.finish()
    assert stream.content == ("" if is_required or form.is_bare else "Hm")
    assert stream.tool_calls or not has_ended
    if not is_parallel:
        assert len(stream.tool_calls) <= 1
    for call in stream.tool_calls if has_ended else stream.tool_calls[:-1]:
        parameters = next(tool.parameters for tool in TOOLS if tool.name == call.name)
        Draft202012Validator({"type": "object", **parameters}).validate(json.loads(call.arguments))
