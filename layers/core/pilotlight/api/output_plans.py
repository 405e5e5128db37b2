"""How an answer is held to its form, and how calls of tools are read out of it: what a conversation asks of guidance.

Only conversations with tools or a format need this module, which loads the compiler of constraints.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pilotlight.api.conversation import (
    ChoiceFormat,
    ContentDelta,
    Conversation,
    GrammarFormat,
    JsonFormat,
    NamedTool,
    OutputFormat,
    OutputPlan,
    RegexFormat,
    ToolCallDelta,
    ToolChoice,
)
from pilotlight.errors import FieldError, InvalidInputError
from pilotlight.generation import tool_calls, tools
from pilotlight.generation.constraints import ConstraintCompiler
from pilotlight.generation.request import ConstraintFactory
from pilotlight.generation.tool_call_stream import ToolCallStream

if TYPE_CHECKING:
    from pilotlight.generation.language_model import LanguageModel

ANY_OBJECT: dict[str, Any] = {"type": "object"}


class ChoiceReader:
    """Reads the calls of one choice, whose number its deltas have."""

    def __init__(self, choice: int, stream: ToolCallStream) -> None:
        self._choice = choice
        self._stream = stream

    def read(self, text: str) -> Sequence[ContentDelta | ToolCallDelta]:
        """Return what the next characters add."""
        return list(map(self._number, self._stream.read(text)))

    def finish(self) -> Sequence[ContentDelta | ToolCallDelta]:
        """Return what was held back."""
        return list(map(self._number, self._stream.finish()))

    def _number(self, delta: tools.MessagePiece) -> ContentDelta | ToolCallDelta:
        if isinstance(delta, tools.TextPiece):
            return ContentDelta(self._choice, delta.text)
        return ToolCallDelta(self._choice, delta.index, delta.arguments, delta.id, delta.name)


def build_plan(model: "LanguageModel", conversation: Conversation) -> OutputPlan:
    """Build the plan of a conversation with tools or a format."""
    compiler, asked = model.constraint_compiler, conversation.output_format
    if not conversation.tools or model.chat_template is None:
        return OutputPlan(None if asked is None else compile_format(compiler, asked))
    if asked is not None and not isinstance(asked, JsonFormat):
        raise FieldError(
            "Tools go together with answers in JSON, not with a regular expression, a grammar or choices; leave out "
            "one of them.",
            param="tools",
        )
    plan = tool_calls.prepare_tool_use(
        model.chat_template,
        [tools.Tool(tool.name, tool.description, tool.parameters or {}, tool.strict) for tool in conversation.tools],
        convert_choice(conversation.tool_choice),
        compiler=compiler,
        is_parallel=conversation.parallel_tool_calls,
        answer_schema=None if asked is None else get_schema(asked),
    )
    return OutputPlan(
        plan.constraint,
        lambda choice: ChoiceReader(choice, plan.create_stream()),
        plan.prepare_messages,
        plan.template_tools,
    )


def convert_choice(choice: ToolChoice) -> tools.ToolChoice:
    """Convert the choice of tools; one that is named must be called."""
    return tools.ToolChoice("required", (choice.name,)) if isinstance(choice, NamedTool) else tools.ToolChoice(choice)


def get_schema(asked: JsonFormat) -> dict[str, Any]:
    """Return the schema of an answer in JSON: without one of its own, any object."""
    if asked.schema is None:
        return ANY_OBJECT
    if asked.schema is False:
        raise InvalidInputError("The JSON schema is false, which no document fits; send another.")
    return {} if asked.schema is True else asked.schema


def compile_format(compiler: ConstraintCompiler, asked: OutputFormat) -> ConstraintFactory:
    """Compile the constraint of a format."""
    match asked:
        case JsonFormat():
            return compiler.compile_json_schema(get_schema(asked), strict=asked.strict)
        case RegexFormat():
            return compiler.compile_regex(asked.pattern)
        case ChoiceFormat():
            return compiler.compile_choices(asked.choices)
        case GrammarFormat():
            return compiler.compile_grammar(asked.grammar)
