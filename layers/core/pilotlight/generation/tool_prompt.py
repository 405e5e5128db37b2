"""Tools told to a model in its prompt, where its chat template does not do it.

The system message lists the tools, and calls and their results are written into the conversation as text, in the form
that the Hermes models were trained with and many others have seen:

    <tools>                         <tool_call>                                <tool_response>
    {"type": "function", ...}       {"name": "f", "arguments": {"x": 1}}       what the tool answered
    </tools>                        </tool_call>                               </tool_response>
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from pilotlight.generation.conversation_rewriting import (
    BETWEEN_MESSAGES,
    SYSTEM_ROLES,
    Message,
    flatten_content,
    parse_arguments,
)
from pilotlight.generation.tools import Tool

INSTRUCTIONS = """# Tools

You may call functions to answer the user. These are the functions, as JSON, one a line:
<tools>
{tools}
</tools>

To call a function, write its name and arguments as a JSON object between these tags:
<tool_call>
{{"name": <name>, "arguments": <arguments as a JSON object>}}
</tool_call>

The results come back in tags <tool_response>."""


def write_tools(messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool]) -> list[Message]:
    """Write tools, calls and results as text into the messages."""
    written = [message for group in _group_results(messages) for message in group]
    return _add_instructions(written, tools) if tools else written


def has_tool_use(message: Mapping[str, Any]) -> bool:
    """Return whether a message is a call or the result of one."""
    return message.get("role") == "tool" or bool(message.get("tool_calls"))


def _add_instructions(messages: list[Message], tools: Sequence[Tool]) -> list[Message]:
    """Add the tools to the first message if it is the system's, or put one before it."""
    instructions = INSTRUCTIONS.format(tools="\n".join(_write(tool.describe()) for tool in tools))
    if not messages or messages[0].get("role") not in SYSTEM_ROLES:
        return [{"role": "system", "content": instructions}, *messages]
    first = flatten_content(messages[0])
    content = BETWEEN_MESSAGES.join(text for text in (first.get("content"), instructions) if text)
    return [{**first, "content": content}, *messages[1:]]


def _group_results(messages: Sequence[Mapping[str, Any]]) -> Iterator[list[Message]]:
    """Write each run of tools' results as one message of the user, and each call as the assistant's text."""
    for is_result, group in groupby(messages, key=lambda message: message.get("role") == "tool"):
        if is_result:
            yield [{"role": "user", "content": "\n".join(_write_result(dict(message)) for message in group)}]
        else:
            yield [_write_calls(dict(message)) for message in group]


def _write_result(message: Message) -> str:
    return f"<tool_response>\n{flatten_content(message).get('content') or ''}\n</tool_response>"


def _write_calls(message: Message) -> Message:
    """Write a message's calls behind its text."""
    calls = parse_arguments(message).get("tool_calls")
    if not isinstance(calls, list) or not calls:
        return message
    text = flatten_content(message).get("content")
    parts = ([text] if text else []) + [_write_call(call) for call in calls]
    others = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**others, "content": "\n".join(parts)}


def _write_call(call: Any) -> str:  # noqa: ANN401  # any JSON
    function = call.get("function") if isinstance(call, dict) else None
    function = function if isinstance(function, dict) else {}
    written = _write({"name": function.get("name"), "arguments": function.get("arguments")})
    return f"<tool_call>\n{written}\n</tool_call>"


def _write(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
