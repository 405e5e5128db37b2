"""OpenAI's messages, tools and choice of tools, in the terms of a `Conversation`; what is not text is refused."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from pilotlight.api.conversation import FunctionTool, NamedTool, ToolChoice
from pilotlight.api.openai_errors import UNSUPPORTED
from pilotlight.api.schemas.chat import ChatMessage, ChatToolCall, ContentPart, NamedToolChoice, ToolDefinition
from pilotlight.errors import FieldError

ROLES = ("system", "developer", "user", "assistant", "tool")
TEXT_PARTS = ("text", "input_text", "output_text")
NAMED_CHOICE = '{"type": "function", "function": {"name": ...}}'
PART_SEPARATOR = "\n"  # between a message's parts, as vLLM and llama.cpp join them


def build_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Build the messages as chat templates take them."""
    return [build_message(message, f"messages[{place}]") for place, message in enumerate(messages)]


def build_message(message: ChatMessage, path: str) -> dict[str, Any]:
    """Build one message; `path` names it in errors."""
    if message.role not in ROLES:
        raise FieldError(f"{path}.role is {message.role!r}; use {', '.join(ROLES)}.", param=f"{path}.role")
    if message.role in ("system", "developer", "user") and message.content is None:
        raise FieldError(f"{path} has no content, which the role {message.role} needs.", param=f"{path}.content")
    built: dict[str, Any] = {"role": message.role, "content": join_content(message.content, f"{path}.content")}
    if message.role == "assistant" and not built["content"] and message.refusal:
        built["content"] = message.refusal
    if message.role == "assistant" and message.tool_calls:
        built["tool_calls"] = list(map(build_tool_call, message.tool_calls))
    for name in ("name", "tool_call_id", "reasoning_content"):
        if (value := getattr(message, name)) is not None:
            built[name] = value
    return built


def join_content(content: str | Sequence[ContentPart] | None, path: str) -> str:
    """Join the parts of a message to one text."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = [read_part(part, f"{path}[{place}]") for place, part in enumerate(content)]
    return PART_SEPARATOR.join(texts)


def read_part(part: ContentPart, path: str) -> str:
    """Return the text of a part."""
    if part.type == "refusal":
        return part.refusal or ""
    if part.type not in TEXT_PARTS:
        raise FieldError(
            f"{path} is of the type {part.type!r}, and this model reads text only; send parts of the type text.",
            param=path,
            code=UNSUPPORTED,
        )
    if part.text is None:
        raise FieldError(f"{path} is of the type {part.type}, but has no text.", param=f"{path}.text")
    return part.text


def build_tool_call(call: ChatToolCall) -> dict[str, Any]:
    """Build an earlier call, with its arguments as JSON text."""
    arguments = call.function.arguments
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
    return {"id": call.id or "", "type": "function", "function": {"name": call.function.name, "arguments": text}}


def build_tools(tools: Sequence[ToolDefinition] | None) -> tuple[FunctionTool, ...]:
    """Build the functions that the model may call."""
    return tuple(build_tool(tool, f"tools[{place}]") for place, tool in enumerate(tools or ()))


def build_tool(tool: ToolDefinition, path: str) -> FunctionTool:
    """Build one of them; `path` names it in errors."""
    if tool.type != "function":
        raise FieldError(
            f"{path}.type is {tool.type!r}; this server calls no tools of its own, so send functions.",
            param=f"{path}.type",
            code=UNSUPPORTED,
        )
    if tool.function is None:
        raise FieldError(f"{path} has no function.", param=f"{path}.function")
    function = tool.function
    return FunctionTool(
        name=function.name,
        description=function.description,
        parameters=function.parameters,
        strict=bool(function.strict),
    )


def build_tool_choice(choice: str | NamedToolChoice | None, tools: Sequence[FunctionTool]) -> ToolChoice:
    """Build which tools the model may or must call: by default, any or none of those that there are."""
    if choice is None or choice in ("auto", "none"):
        return "none" if choice == "none" else "auto"
    if choice == "required":
        check_tools_exist("required", tools)
        return "required"
    if isinstance(choice, str):
        raise FieldError(
            f"tool_choice is {choice!r}; use auto, none, required or {NAMED_CHOICE}.",
            param="tool_choice",
        )
    kind = choice.type or "function"
    if kind != "function" or choice.function is None:
        raise FieldError(
            f"tool_choice has the type {kind!r}; name a function instead: {NAMED_CHOICE}.",
            param="tool_choice",
            code=UNSUPPORTED if kind != "function" else None,
        )
    check_tools_exist(choice.function.name, tools)
    check_is_tool(choice.function.name, (tool.name for tool in tools))
    return NamedTool(choice.function.name)


def check_tools_exist(choice: str, tools: Sequence[FunctionTool]) -> None:
    """Raise `FieldError` if a tool must be called, but there is none."""
    if not tools:
        raise FieldError(f"tool_choice is {choice!r}, but there are no tools; send some.", param="tool_choice")


def check_is_tool(name: str, names: Iterable[str]) -> None:
    """Raise `FieldError` if the chosen tool is none of those that there are."""
    known = list(names)
    if name not in known:
        raise FieldError(f"tool_choice names {name!r}, but the tools are {', '.join(known)}.", param="tool_choice")
