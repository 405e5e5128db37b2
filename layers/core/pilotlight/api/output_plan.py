"""How an answer is forced into the form that was asked for, and how calls of tools are read out of its text."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from pilotlight.api.conversation import (
    ChoiceFormat,
    ContentDelta,
    Conversation,
    GrammarFormat,
    JsonFormat,
    Message,
    NamedTool,
    OutputFormat,
    RegexFormat,
    ToolCallDelta,
    ToolChoice,
)  # fmt: skip
from pilotlight.errors import FieldError
from pilotlight.generation import tools
from pilotlight.generation.request import ConstraintFactory

if TYPE_CHECKING:
    from pilotlight.generation.constraints import ConstraintCompiler
    from pilotlight.generation.language_model import LanguageModel
    from pilotlight.generation.tool_call_stream import ToolCallStream


class OutputReader(Protocol):
    """Tells content from tool calls in one choice's text, as it comes."""

    def read(self, text: str) -> Sequence[ContentDelta | ToolCallDelta]:
        """Return what the next characters add; text that may still become a call is held back."""

    def finish(self) -> Sequence[ContentDelta | ToolCallDelta]:
        """Return what was held back, when the text is over."""


class OutputPlan(Struct, frozen=True):
    """How the prompt tells of tools, how the answer is forced into its form, and how it is read."""

    constraint: ConstraintFactory | None = None
    create_reader: Callable[[int], OutputReader] | None = None  # for a choice's number; None: all text is content
    prepare_messages: Callable[[Sequence[Message]], Sequence[Mapping[str, Any]]] = list
    template_tools: Sequence[Mapping[str, Any]] | None = None


class ToolCallReader:
    """Reads one choice's text by a stream of tool calls, whose deltas know no choice."""

    def __init__(self, stream: "ToolCallStream", choice: int) -> None:
        self._stream = stream
        self._choice = choice

    def read(self, text: str) -> Sequence[ContentDelta | ToolCallDelta]:
        """Return what the next characters add."""
        return list(map(self._add_choice, self._stream.feed(text)))

    def finish(self) -> Sequence[ContentDelta | ToolCallDelta]:
        """Return what was held back."""
        return list(map(self._add_choice, self._stream.finish()))

    def _add_choice(self, delta: tools.MessageDelta) -> ContentDelta | ToolCallDelta:
        """Add the choice to a delta."""
        if isinstance(delta, tools.ContentDelta):
            return ContentDelta(self._choice, delta.text)
        return ToolCallDelta(self._choice, delta.index, delta.arguments, delta.id, delta.name)


def plan_output(model: "LanguageModel", conversation: Conversation) -> OutputPlan:
    """Plan the form of the answer: free text, a format, or calls of tools."""
    form = conversation.output_format
    if conversation.tools:
        return plan_tool_use(model, conversation)
    if isinstance(conversation.tool_choice, NamedTool) or conversation.tool_choice == "required":
        raise FieldError("tool_choice asks for a call, but there are no tools; send some.", param="tool_choice")
    return OutputPlan(None if form is None else compile_format(model.constraint_compiler, form))


def compile_format(compiler: "ConstraintCompiler", form: OutputFormat) -> ConstraintFactory:
    """Compile the constraint of a format."""
    if isinstance(form, RegexFormat):
        return compiler.compile_regex(form.pattern)
    if isinstance(form, ChoiceFormat):
        return compiler.compile_choices(form.choices)
    if isinstance(form, GrammarFormat):
        return compiler.compile_grammar(form.grammar)
    return compiler.compile_json_schema(get_schema(form))


def get_schema(form: JsonFormat) -> Mapping[str, Any]:
    """Return the schema of a JSON answer: an object of any form unless there is one; `true` is any JSON."""
    if form.schema is None:
        return {"type": "object"}
    if isinstance(form.schema, bool):
        return {} if form.schema else {"not": {}}
    return form.schema


def plan_tool_use(model: "LanguageModel", conversation: Conversation) -> OutputPlan:
    """Plan the use of tools; of the formats, only JSON leaves room for calls."""
    from pilotlight.generation.tool_calls import prepare_tool_use  # with the grammars' library, which few requests need

    form, template = conversation.output_format, model.chat_template
    if form is not None and not isinstance(form, JsonFormat):
        raise FieldError("Tools go with JSON formats alone; leave out the tools, or the format.", param="tools")
    if template is None:
        raise FieldError(f"The model {model.name!r} has no chat template, so it calls no tools.", param="tools")
    plan = prepare_tool_use(
        template,
        [tools.Tool(tool.name, tool.description, tool.parameters or {}, tool.strict) for tool in conversation.tools],
        translate_choice(conversation.tool_choice),
        compiler=model.constraint_compiler,
        is_parallel=conversation.parallel_tool_calls,
        answer_schema=None if form is None else get_schema(form),
    )
    return OutputPlan(
        plan.constraint,
        lambda choice: ToolCallReader(plan.create_stream(), choice),
        plan.prepare_messages,
        plan.template_tools,
    )


def translate_choice(choice: ToolChoice) -> tools.ToolChoice:
    """Translate the choice of tools into the terms of those who force it."""
    return tools.ToolChoice("required", (choice.name,)) if isinstance(choice, NamedTool) else tools.ToolChoice(choice)
