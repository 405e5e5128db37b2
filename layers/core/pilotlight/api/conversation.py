"""A request for the next message of a conversation, and the events of its answer, in no protocol's words."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from pilotlight.generation.request import ConstraintFactory, SamplingOptions, ScoredToken

Message = dict[str, Any]  # as chat templates take it: role, content, tool_calls, tool_call_id, name
FinishName = Literal["stop", "length", "tool_calls"]


class FunctionTool(Struct, frozen=True, kw_only=True):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None  # a JSON schema; None for a function without arguments
    strict: bool = False


class NamedTool(Struct, frozen=True):
    """A choice of tools that allows one of them only, which must be called."""

    name: str


class JsonFormat(Struct, frozen=True, tag="json"):
    """The answer is a JSON document; without a schema, an object of any form."""

    schema: dict[str, Any] | bool | None = None
    strict: bool = True  # whether a schema is refused that cannot be held to exactly


class RegexFormat(Struct, frozen=True, tag="regex"):
    """The answer matches a regular expression."""

    pattern: str


class ChoiceFormat(Struct, frozen=True, tag="choice"):
    """The answer is one of these texts."""

    choices: tuple[str, ...]


class GrammarFormat(Struct, frozen=True, tag="grammar"):
    """The answer matches a grammar, in Lark's form."""

    grammar: str


OutputFormat = JsonFormat | RegexFormat | ChoiceFormat | GrammarFormat
ToolChoice = Literal["auto", "none", "required"] | NamedTool


class Conversation(Struct, frozen=True, kw_only=True):
    """A request for the next message of a conversation, in no protocol's words."""

    messages: Sequence[Message]
    tools: tuple[FunctionTool, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    output_format: OutputFormat | None = None
    sampling: SamplingOptions = SamplingOptions()
    max_tokens: int | None = None  # None: what is left of the context
    min_tokens: int = 0
    choices: int = 1
    stop_strings: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()
    include_stop_string: bool = False
    ignore_end: bool = False
    top_logprobs: int | None = None  # None: no logprobs
    prompt_lookup: bool = False
    template_options: Mapping[str, Any] = {}  # further variables of the chat template
    add_generation_prompt: bool = True
    continue_final_message: bool = False  # the answer continues the last message, which is the assistant's


class ContentDelta(Struct, frozen=True):
    """The next whole characters of an answer's text."""

    choice: int
    text: str
    tokens: tuple[int, ...] = ()
    scores: tuple[ScoredToken, ...] = ()  # if logprobs were asked for


class ToolCallDelta(Struct, frozen=True):
    """The next part of a tool call: its id and name in its first delta, its arguments as JSON text in pieces."""

    choice: int
    index: int  # of the call in its message
    arguments: str = ""
    id: str | None = None
    name: str | None = None


class MessageEnd(Struct, frozen=True):
    """The end of one choice's message."""

    choice: int
    reason: FinishName
    stop: str | int | None = None  # the stop string or token that ended it, if none of the model's end tokens did
    completion_tokens: int = 0


ChatEvent = ContentDelta | ToolCallDelta | MessageEnd


class OutputReader(Protocol):
    """Tells content from tool calls in one choice's text, as it comes."""

    def read(self, text: str) -> Sequence[ContentDelta | ToolCallDelta]:
        """Return what the next characters add; text that may still become a call is held back."""

    def finish(self) -> Sequence[ContentDelta | ToolCallDelta]:
        """Return what was held back, when the text is over."""


class OutputPlan(Struct, frozen=True):
    """How an answer is forced into its form, and how it is read."""

    constraint: ConstraintFactory | None = None
    create_reader: Callable[[int], OutputReader] | None = None  # for a choice's number; None: all text is content
    prepare_messages: Callable[[Sequence[Mapping[str, Any]]], Sequence[Mapping[str, Any]]] | None = (
        None  # for the template
    )
    template_tools: list[dict[str, Any]] | None = None  # None where the messages tell of the tools, or there are none
