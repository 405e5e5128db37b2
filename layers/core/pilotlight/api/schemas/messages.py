"""Bodies of /v1/messages and /v1/messages/count_tokens, in the form of Anthropic's Messages API.

Null is as if a field were absent, and unknown fields, such as cache_control, are ignored.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from pilotlight.api.schemas.chat import MAX_STOPS, MAX_TOOLS, JsonObject, StopText

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class ContentBlock(Struct, frozen=True):
    """A block of a message: text, a call of a tool, or its result."""

    type: str
    text: str | None = None
    id: str | None = None  # of a tool_use
    name: str | None = None
    input: JsonObject | None = None
    tool_use_id: str | None = None  # of a tool_result
    content: "str | list[ContentBlock] | None" = None
    is_error: bool | None = None


class InputMessage(Struct, frozen=True):
    """A message of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | list[ContentBlock]


class ToolBody(Struct, frozen=True):
    """A tool of the caller's; those of other types are Anthropic's own, and refused."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    type: str | None = None
    description: str | None = None
    input_schema: JsonObject | None = None
    strict: bool | None = None


class MessagesToolChoice(Struct, frozen=True):
    """Whether tools are called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class OutputFormatBody(Struct, frozen=True):
    """The form of the answer."""

    type: str
    schema: JsonObject | None = None


class OutputConfig(Struct, frozen=True):
    """What the answer is to be."""

    format: OutputFormatBody | None = None


class CountTokensBody(Struct, frozen=True, kw_only=True):
    """A conversation whose tokens are to be counted."""

    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[InputMessage], Meta(min_length=1)]
    system: str | list[ContentBlock] | None = None
    tools: Annotated[list[ToolBody], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: MessagesToolChoice | None = None
    output_config: OutputConfig | None = None


class MessagesBody(CountTokensBody, frozen=True, kw_only=True):
    """A request for the next message."""

    max_tokens: Annotated[int, Meta(ge=1)]
    stop_sequences: Annotated[list[StopText], Meta(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    container: Any = None  # refused
    mcp_servers: Any = None


class TextBlock(Struct, frozen=True, kw_only=True, tag_field="type", tag="text"):
    """Text of an answer."""

    text: str = ""


class ToolUseBlock(Struct, frozen=True, kw_only=True, tag_field="type", tag="tool_use"):
    """A call of a tool."""

    id: str
    name: str
    input: JsonObject = {}


AnswerBlock = TextBlock | ToolUseBlock


class MessageUsage(Struct, frozen=True, kw_only=True):
    """The tokens of a message; those of the input that were computed for an earlier request are counted apart."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens: int


class MessageObject(Struct, frozen=True, kw_only=True):
    """The answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[AnswerBlock] = []
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: MessageUsage


class TokenCount(Struct, frozen=True):
    """The tokens of a conversation."""

    input_tokens: int
