"""Translate a request of OpenAI's Responses API into a conversation.

Nothing is kept between requests, so whatever refers to an earlier response is refused, with what to send instead.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from pilotlight.api.conversation import (
    Conversation,
    FunctionTool,
    JsonFormat,
    Message,
    NamedTool,
    OutputFormat,
    ToolChoice,
)
from pilotlight.api.generation_fields import build_sampling, build_stop_strings, find_output_format
from pilotlight.api.openai_chat_messages import PART_SEPARATOR
from pilotlight.api.openai_errors import UNSUPPORTED
from pilotlight.api.schemas.responses import (
    FunctionToolBody,
    InputPart,
    ResponseInputItem,
    ResponsesBody,
    ResponseToolChoice,
    TextFormat,
)
from pilotlight.errors import FieldError

LOGPROBS_INCLUDED = "message.output_text.logprobs"
ROLES = ("system", "developer", "user", "assistant")
TEXT_PARTS = frozenset({"input_text", "output_text", "text", "refusal"})
DROPPED_ITEMS = frozenset({"reasoning"})  # thoughts of earlier answers, which templates leave out too
STATELESS = "this server keeps no responses; send the whole conversation as `input`"


def build_conversation(body: ResponsesBody) -> Conversation:
    """Build the conversation; raise `FieldError` for what is not served."""
    refuse_unsupported(body)
    tools, choice = select_tools(body)
    return Conversation(
        messages=build_messages(body),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        output_format=build_output_format(body.text.format if body.text else None) or find_output_format(body),
        sampling=build_sampling(body),
        max_tokens=body.max_output_tokens,
        min_tokens=body.min_tokens or 0,
        stop_strings=build_stop_strings(body),
        stop_tokens=tuple(body.stop_token_ids or ()),
        include_stop_string=body.include_stop_str_in_output is True,
        ignore_end=body.ignore_eos is True,
        prompt_lookup=body.prompt_lookup is True,
        top_logprobs=(body.top_logprobs or 0) if wants_logprobs(body) else None,
        template_options=body.chat_template_kwargs or {},
    )


def refuse_unsupported(body: ResponsesBody) -> None:
    """Refuse what needs memory between requests, or a service that is not there."""
    refused = {
        "previous_response_id": (body.previous_response_id is not None, STATELESS),
        "conversation": (body.conversation is not None, STATELESS),
        "background": (body.background is True, "responses are made while the caller waits; leave it out"),
        "truncation": (body.truncation not in (None, "disabled"), "shorten `input` yourself; nothing is left out"),
        "n": (body.n not in (None, 1), "a response is one; send the request several times"),
        "prompt": (body.prompt is not None, "this server keeps no prompts; send its text as `instructions`"),
    }
    for name, (is_asked, advice) in refused.items():
        if is_asked:
            raise FieldError(f"{name} is not supported: {advice}.", param=name, code=UNSUPPORTED)


def wants_logprobs(body: ResponsesBody) -> bool:
    """Return whether the answer's tokens are to have their probabilities."""
    return body.top_logprobs is not None or LOGPROBS_INCLUDED in (body.include or ())


def build_output_format(asked: TextFormat | None) -> OutputFormat | None:
    """Build the form of the answer's text."""
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return JsonFormat()
    if asked.type != "json_schema":
        raise FieldError(
            f"text.format.type is {asked.type!r}; send text, json_object or json_schema.", param="text.format.type"
        )
    if asked.schema is None:
        raise FieldError("text.format has no schema; send the JSON schema of the answer.", param="text.format.schema")
    return JsonFormat(asked.schema, strict=asked.strict is True)


def select_tools(body: ResponsesBody) -> tuple[tuple[FunctionTool, ...], ToolChoice]:
    """Select the tools that may be called, and whether they must be."""
    tools = tuple(build_tool(tool, place) for place, tool in enumerate(body.tools or ()))
    choice = body.tool_choice
    if choice is None or choice in ("auto", "none", "required"):
        if choice == "required" and not tools:
            raise FieldError("tool_choice is 'required', but there are no tools; send some.", param="tool_choice")
        return tools, "none" if choice == "none" else "required" if choice == "required" else "auto"
    if isinstance(choice, ResponseToolChoice):
        names = {tool.name for tool in tools}
        if choice.type == "function" and choice.name in names:
            return tools, NamedTool(str(choice.name))
        if choice.type == "allowed_tools":
            allowed = {tool.name for tool in choice.tools or ()}
            selected = tuple(tool for tool in tools if tool.name in allowed)
            if selected and not allowed - names:
                return selected, choice.mode or "auto"
        raise FieldError(f"tool_choice names no function of `tools`; there are {sorted(names)}.", param="tool_choice")
    raise FieldError(f"tool_choice is {choice!r}; send auto, none, required or a function.", param="tool_choice")


def build_tool(tool: FunctionToolBody, place: int) -> FunctionTool:
    """Build a tool; those that OpenAI runs itself are refused."""
    if tool.type != "function":
        raise FieldError(
            f"tools[{place}] is of the type {tool.type!r}, which this server neither runs nor passes on; send tools of "
            "the type function.",
            param=f"tools[{place}].type",
            code=UNSUPPORTED,
        )
    if not tool.name:
        raise FieldError(f"tools[{place}] has no name; name the function.", param=f"tools[{place}].name")
    return FunctionTool(
        name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict is True
    )


def build_messages(body: ResponsesBody) -> list[Message]:
    """Build the messages: the instructions first, then those of the input."""
    messages: list[Message] = []
    if body.instructions:
        messages.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        messages.append({"role": "user", "content": body.input})
    else:
        messages.extend(translate_items(body.input))
    if not any(message["role"] not in ("system", "developer") for message in messages):
        raise FieldError("input has no message; send a text, or items with at least one message.", param="input")
    return messages


def translate_items(items: Sequence[ResponseInputItem]) -> Iterator[Message]:
    """Translate items; calls that follow each other or the assistant's text are one message, as the model wrote it."""
    assistant: Message | None = None  # the message to which calls are added
    functions: dict[str, str] = {}  # by the ids of their calls
    for place, item in enumerate(items):
        kind = item.type or ("message" if item.role else "")
        if kind == "function_call":
            call = translate_call(item, place)
            functions[call["id"]] = call["function"]["name"]
            if assistant is None:
                assistant = {"role": "assistant", "content": ""}
            assistant.setdefault("tool_calls", []).append(call)
            continue
        if kind in DROPPED_ITEMS:
            continue
        if assistant is not None:
            yield assistant
            assistant = None
        message = translate_answered_item(item, kind, place, functions)
        if message["role"] == "assistant":
            assistant = message
        else:
            yield message
    if assistant is not None:
        yield assistant


def translate_answered_item(item: ResponseInputItem, kind: str, place: int, functions: dict[str, str]) -> Message:
    """Translate a message, or a function's answer."""
    if kind == "message":
        if item.role not in ROLES:
            raise FieldError(
                f"input[{place}].role is {item.role!r}; send one of {', '.join(ROLES)}.", param=f"input[{place}].role"
            )
        return {"role": item.role, "content": join_parts(item.content, f"input[{place}].content")}
    if kind != "function_call_output":
        raise FieldError(
            f"input[{place}] is of the type {kind or 'none'!r}; send message, function_call and function_call_output.",
            param=f"input[{place}].type",
            code=UNSUPPORTED,
        )
    if item.call_id not in functions:
        raise FieldError(
            f"input[{place}] answers the call {item.call_id!r}, which is not in the input before it; send the "
            "function_call too, since this server keeps no responses.",
            param=f"input[{place}].call_id",
        )
    content = join_parts(item.output, f"input[{place}].output")
    return {"role": "tool", "tool_call_id": item.call_id, "name": functions[item.call_id], "content": content}


def translate_call(item: ResponseInputItem, place: int) -> dict[str, Any]:
    """Translate a call of a function."""
    if not item.call_id or not item.name:
        raise FieldError(
            f"input[{place}] is a function_call without its call_id or name; send both.", param=f"input[{place}]"
        )
    function = {"name": item.name, "arguments": item.arguments or ""}
    return {"id": item.call_id, "type": "function", "function": function}


def join_parts(content: str | Sequence[InputPart] | None, path: str) -> str:
    """Join the texts of a content; parts of other kinds are refused, since the model reads text alone."""
    if content is None or isinstance(content, str):
        return content or ""
    for place, part in enumerate(content):
        if part.type not in TEXT_PARTS:
            raise FieldError(
                f"{path}[{place}] is of the type {part.type!r}; this model reads text alone.",
                param=f"{path}[{place}].type",
                code=UNSUPPORTED,
            )
    return PART_SEPARATOR.join(part.text or part.refusal or "" for part in content)
