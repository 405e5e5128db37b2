"""Calls of tools from beginning to end: into the prompt, forced valid while they are written, and out of the text."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from pilotlight.errors import InvalidInputError
from pilotlight.generation.chat_template import ChatTemplate
from pilotlight.generation.constraints import ConstraintCompiler, write_schema
from pilotlight.generation.request import ConstraintFactory
from pilotlight.generation.tool_call_formats import (
    UNTRAINED,
    ToolCallFormat,
    detect_format,
    write_grammar,
)
from pilotlight.generation.tool_call_stream import ToolCallStream
from pilotlight.generation.tool_prompt import write_tools
from pilotlight.generation.tools import Tool, ToolChoice


class ToolPlan(Struct, frozen=True, kw_only=True):
    """All that a request with tools needs.

    The prompt is `template.render(plan.prepare_messages(messages), tools=plan.template_tools)`; the generation gets
    `plan.constraint`; and the text of each choice goes through a stream of its own, `plan.create_stream()`.
    """

    prepare_messages: Callable[[Sequence[Mapping[str, Any]]], Sequence[Mapping[str, Any]]]
    template_tools: list[dict[str, Any]] | None
    constraint: ConstraintFactory | None
    create_stream: Callable[[], ToolCallStream]


def prepare_tool_use(
    template: ChatTemplate,
    tools: Sequence[Tool],
    choice: ToolChoice,
    *,
    compiler: ConstraintCompiler,
    is_parallel: bool = True,
    answer_schema: Mapping[str, Any] | None = None,
) -> ToolPlan:
    """Prepare prompt, constraint and parser for the tools that a request offers, which may be none.

    A tool that alone is named is called once at most, as is any by a model that was not trained for tools. With
    `answer_schema`, an answer that calls no tool is JSON of that schema. Raise InvalidInputError if the choice
    names a tool that there is not, or if a strict tool's schema cannot be held to.
    """
    _check_names(tools, choice)
    offered = () if choice.mode == "none" else tools
    allowed = [tool for tool in offered if not choice.names or tool.name in choice.names]
    known = detect_format(template.text) if template.takes_tools else None
    form = known or UNTRAINED
    return ToolPlan(
        prepare_messages=(lambda messages: messages) if known else (lambda messages: write_tools(messages, offered)),
        template_tools=[tool.describe() for tool in offered] if known and offered else None,
        constraint=_compile(form, allowed, choice, compiler, is_parallel and len(choice.names) != 1, answer_schema),
        create_stream=lambda: ToolCallStream(form, [tool.name for tool in allowed], is_forced=bool(allowed)),
    )


def _check_names(tools: Sequence[Tool], choice: ToolChoice) -> None:
    """Check that tools can be told apart, and that those exist which the choice names."""
    names = [tool.name for tool in tools]
    (name, uses), *_ = Counter(names).most_common(1) or [("", 0)]
    if uses > 1:
        raise InvalidInputError(f"Several tools have the name {name!r}; names are unique.")
    if unknown := [name for name in choice.names if name not in names]:
        raise InvalidInputError(f"tool_choice names {unknown[0]!r}, and the tools are {', '.join(names) or 'none'}.")
    if choice.mode == "required" and not tools:
        raise InvalidInputError("tool_choice requires a call, and there are no tools; send tools.")


def _compile(
    form: ToolCallFormat,
    tools: Sequence[Tool],
    choice: ToolChoice,
    compiler: ConstraintCompiler,
    is_parallel: bool,
    answer_schema: Mapping[str, Any] | None,
) -> ConstraintFactory | None:
    """Compile what the answer may be."""
    if not tools:
        return None if answer_schema is None else compiler.compile_json_schema(answer_schema)
    grammar = write_grammar(
        form,
        [_settle_schema(tool, compiler) for tool in tools],
        compiler,
        is_required=choice.mode == "required",
        is_parallel=is_parallel,
        answer=None if answer_schema is None else write_schema(answer_schema),
    )
    return compiler.compile_grammar(grammar)


def _settle_schema(tool: Tool, compiler: ConstraintCompiler) -> Tool:
    """Return the tool with a schema that can be held to: any object, if its own cannot be and is not strict."""
    try:
        compiler.compile_json_schema({"type": "object", **tool.parameters}, strict=tool.strict)
    except InvalidInputError as exc:
        if tool.strict:
            raise InvalidInputError(f"The parameters of the tool {tool.name!r}: {exc}") from exc
        return Tool(tool.name, tool.description)
    return tool
