"""Translate a request of Anthropic's Messages API into a conversation."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from pilotlight.api.conversation import Conversation, FunctionTool, JsonFormat, Message, NamedTool, ToolChoice
from pilotlight.api.openai_chat_messages import PART_SEPARATOR
from pilotlight.api.schemas.messages import (
    ContentBlock,
    CountTokensBody,
    MessagesBody,
    MessagesToolChoice,
    OutputConfig,
    ToolBody,
)
from pilotlight.errors import FieldError
from pilotlight.generation.request import SamplingOptions

DROPPED_BLOCKS = frozenset({"thinking", "redacted_thinking"})  # of earlier answers; templates leave them out too
CHOICES: dict[str, ToolChoice] = {"auto": "auto", "any": "required", "none": "none"}


def build_conversation(body: MessagesBody) -> Conversation:
    """Build the conversation; raise `FieldError` for what is not served."""
    for name in ("container", "mcp_servers"):
        if getattr(body, name):
            raise FieldError(f"{name} is not supported: Anthropic's own servers run it; leave it out.", param=name)
    prompt = build_prompt(body)
    asked = {"temperature": body.temperature, "top_p": body.top_p, "top_k": body.top_k}
    return msgspec.structs.replace(
        prompt,
        sampling=msgspec.convert({name: one for name, one in asked.items() if one is not None}, SamplingOptions),
        max_tokens=body.max_tokens,
        stop_strings=tuple(body.stop_sequences or ()),
    )


def build_prompt(body: CountTokensBody) -> Conversation:
    """Build what the prompt is made of; a last message of the assistant's is continued."""
    choice = body.tool_choice
    return Conversation(
        messages=list(translate_messages(body)),
        tools=tuple(build_tool(tool, place) for place, tool in enumerate(body.tools or ())),
        tool_choice=select_tool_choice(choice, body.tools or ()),
        parallel_tool_calls=choice is None or choice.disable_parallel_tool_use is not True,
        output_format=build_output_format(body.output_config),
        continue_final_message=body.messages[-1].role == "assistant",
    )


def build_output_format(config: OutputConfig | None) -> JsonFormat | None:
    """Build the form of the answer's text."""
    if config is None or config.format is None:
        return None
    if config.format.type != "json_schema" or config.format.schema is None:
        raise FieldError(
            f"output_config.format has the type {config.format.type!r}; send json_schema with a schema.",
            param="output_config.format",
        )
    return JsonFormat(config.format.schema)


def build_tool(tool: ToolBody, place: int) -> FunctionTool:
    """Build a tool; those that Anthropic runs or describes itself are refused."""
    if tool.type not in (None, "custom"):
        raise FieldError(
            f"tools[{place}] is of the type {tool.type!r}, which is Anthropic's own; send tools with an input_schema.",
            param=f"tools[{place}].type",
        )
    return FunctionTool(
        name=tool.name, description=tool.description, parameters=tool.input_schema, strict=tool.strict is True
    )


def select_tool_choice(choice: MessagesToolChoice | None, tools: Sequence[ToolBody]) -> ToolChoice:
    """Select whether tools are called, and which."""
    if choice is None:
        return "auto"
    if choice.type != "tool":
        if choice.type == "any" and not tools:
            raise FieldError("tool_choice is any, but there are no tools; send some.", param="tool_choice")
        return CHOICES[choice.type]
    names = [tool.name for tool in tools]
    if choice.name not in names:
        raise FieldError(f"tool_choice names {choice.name!r}, and the tools are {names}.", param="tool_choice.name")
    return NamedTool(str(choice.name))


def translate_messages(body: CountTokensBody) -> Iterator[Message]:
    """Translate the messages, the system's first."""
    system = join_texts(body.system, "system")
    if system:
        yield {"role": "system", "content": system}
    names: dict[str, str] = {}  # of the called tools, by the ids of their calls
    for place, message in enumerate(body.messages):
        path = f"messages[{place}].content"
        if isinstance(message.content, str):
            yield {"role": message.role, "content": message.content}
        elif message.role == "assistant":
            yield translate_answer(message.content, path, names)
        else:
            yield from translate_question(message.role, message.content, path, names)


def translate_answer(blocks: Sequence[ContentBlock], path: str, names: dict[str, str]) -> Message:
    """Translate an earlier answer: its text and its calls."""
    calls: list[dict[str, Any]] = []
    texts: list[ContentBlock] = []
    for place, block in enumerate(blocks):
        if block.type != "tool_use":
            texts.append(block)
            continue
        if not block.id or not block.name:
            raise FieldError(f"{path}[{place}] is a tool_use without its id or name; send both.", param=path)
        names[block.id] = block.name
        function = {"name": block.name, "arguments": msgspec.json.encode(block.input or {}).decode()}
        calls.append({"id": block.id, "type": "function", "function": function})
    message: Message = {"role": "assistant", "content": join_texts(texts, path)}
    return {**message, "tool_calls": calls} if calls else message


def translate_question(
    role: str, blocks: Sequence[ContentBlock], path: str, names: dict[str, str]
) -> Iterator[Message]:
    """Translate a message of the user's: the results of tools first, since templates have them behind the calls."""
    texts = [block for block in blocks if block.type != "tool_result"]
    for place, block in enumerate(blocks):
        if block.type != "tool_result":
            continue
        if block.tool_use_id not in names:
            raise FieldError(
                f"{path}[{place}] is the result of the call {block.tool_use_id!r}, which no message before it has.",
                param=f"{path}[{place}].tool_use_id",
            )
        content = join_texts(block.content, f"{path}[{place}].content")
        yield {"role": "tool", "tool_call_id": block.tool_use_id, "name": names[block.tool_use_id], "content": content}
    if texts:
        yield {"role": role, "content": join_texts(texts, path)}


def join_texts(content: str | Sequence[ContentBlock] | None, path: str) -> str:
    """Join the texts of a content; blocks of other kinds are refused, since the model reads text alone."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for place, block in enumerate(content):
        if block.type in DROPPED_BLOCKS:
            continue
        if block.type != "text":
            raise FieldError(
                f"{path}[{place}] is of the type {block.type!r}; this model reads text alone.",
                param=f"{path}[{place}].type",
            )
        texts.append(block.text or "")
    return PART_SEPARATOR.join(texts)
