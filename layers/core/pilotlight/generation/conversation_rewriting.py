"""Ways to write the same conversation for a chat template that does not take it as it is.

Clients send a `developer` role, several system messages, or two messages of the user in a row; many templates know
none of that: they refuse it, or drop it without a word. Each rewriting here goes a step further than the one before.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import msgspec

from pilotlight.errors import InvalidInputError

Message = dict[str, Any]
BETWEEN_MESSAGES = "\n\n"  # the texts of messages that are written as one
BETWEEN_PARTS = "\n"  # the texts of one message's parts, as vLLM joins them
SHORT_ID_LENGTH = 9
SYSTEM_ROLES = ("system", "developer")


def copy_messages(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Copy messages as plain dictionaries, without fields that are null, whose absence templates expect instead."""
    if not messages:
        raise InvalidInputError("There are no messages; send at least one.")
    for message in messages:
        _check(message)
    return [{key: _copy(value) for key, value in message.items() if value is not None} for message in messages]


def parse_arguments(message: Message) -> Message:
    """Turn the arguments of calls, which clients send as JSON text, into the mappings that templates expect."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return {**message, "tool_calls": [_parse_call(call) for call in calls]}


def flatten_content(message: Message) -> Message:
    """Write a list of text parts as one text."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": BETWEEN_PARTS.join(_read_part(part) for part in content)}


def wrap_content(message: Message) -> Message:
    """Write a text as a list of one part."""
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def find_lost_text(messages: Sequence[Mapping[str, Any]], prompt: str) -> str | None:
    """Return a text of a system message that the prompt does not have, or None."""
    texts = [text.strip() for m in messages if m.get("role") in SYSTEM_ROLES for text in _list_texts(m.get("content"))]
    place = 0
    for text in texts:  # found one behind the other, so that many texts do not take time by the square of their number
        if (found := prompt.find(text, place)) < 0 and (found := prompt.find(text)) < 0:
            return text
        place = found
    return None


def rename_developer(messages: list[Message]) -> list[Message]:
    """Write the developer's messages as the system's."""
    return [{**message, "role": "system"} if message.get("role") == "developer" else message for message in messages]


def fill_content(messages: list[Message]) -> list[Message]:
    """Give messages that have only calls an empty text, which many templates add to without asking."""
    return [{"content": "", **message} for message in messages]


def merge_system_messages(messages: list[Message]) -> list[Message]:
    """Write all system messages as one, at the beginning."""
    system = [message for message in messages if message.get("role") == "system"]
    others = [message for message in messages if message.get("role") != "system"]
    return [_merge(system), *others] if system else others


def shorten_call_ids(messages: list[Message]) -> list[Message]:
    """Write the ids of calls as nine letters and digits, which is all that Mistral's templates take."""
    return [_shorten_ids(message) for message in messages]


def split_calls(messages: list[Message]) -> list[Message]:
    """Write an answer of several calls as several answers, each with its results behind it."""
    ids = {_read_id(call) for message in messages if len(calls := _list_calls(message)) > 1 for call in calls}
    results: dict[object, list[Message]] = {}
    for message in messages:
        if (identifier := _read_result_id(message)) in ids:
            results.setdefault(identifier, []).append(message)
    split: list[Message] = []
    for message in messages:
        if len(calls := _list_calls(message)) > 1:
            for i, call in enumerate(calls):
                content = message.get("content", "") if i == 0 else ""
                split += [{**message, "content": content, "tool_calls": [call]}, *results.pop(_read_id(call), [])]
        elif _read_result_id(message) not in ids:
            split.append(message)
    return split


def merge_equal_roles(messages: list[Message]) -> list[Message]:
    """Write several messages in a row of the user, or of the assistant without calls, as one."""
    merged: list[Message] = []
    for key, group in groupby(messages, key=_describe_turn):
        turn = list(group)
        merged += [_merge(turn)] if key in {"user", "assistant"} else turn
    return merged


def move_system_to_user(messages: list[Message]) -> list[Message]:
    """Write the system message at the beginning of the first message of the user."""
    if not messages or messages[0].get("role") != "system":
        return messages
    system, others = messages[0], messages[1:]
    if not others or others[0].get("role") != "user":
        return [{**system, "role": "user"}, *others]
    return [{**_merge([system, others[0]]), "role": "user"}, *others[1:]]


# Each is tried on what those before it have made.
REWRITINGS: tuple[Callable[[list[Message]], list[Message]], ...] = (
    fill_content,
    shorten_call_ids,
    split_calls,
    merge_system_messages,
    merge_equal_roles,
    move_system_to_user,
)


def _check(message: Mapping[str, Any]) -> None:
    """Check that a message has the form that everything here relies on."""
    if not isinstance(role := message.get("role"), str):
        raise InvalidInputError(f"A message has the role {role!r}; it is a text, such as user.")
    if not isinstance(content := message.get("content"), str | list | None):
        raise InvalidInputError(f"A message's content is {str(content)[:40]!r}; send a text, or a list of parts.")


def _describe_turn(message: Message) -> str:
    """Return the role, or another word for what must stay a message of its own."""
    return "call" if message.get("tool_calls") else str(message.get("role"))


def _merge(messages: list[Message]) -> Message:
    """Write several messages as one, whose fields beside the content are the first one's."""
    if len(messages) == 1:
        return messages[0]
    contents = [message["content"] for message in messages if message.get("content")]
    if all(isinstance(content, str) for content in contents):
        return {**messages[0], "content": BETWEEN_MESSAGES.join(contents)}
    parts = [wrap_content({"content": content})["content"] for content in contents]
    return {**messages[0], "content": [part for listed in parts for part in listed]}


def _parse_call(call: object) -> object:
    """Parse the arguments of a call, unless they are no JSON object: then the template may say what it thinks of it."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = msgspec.json.decode(function["arguments"], type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": arguments}}  # type: ignore[dict-item]  # `call` is a dict


def _list_calls(message: Message) -> list[Any]:
    calls = message.get("tool_calls")
    return calls if isinstance(calls, list) else []


def _read_id(call: object) -> str:
    """Return a call's id; calls without one share the empty one."""
    identifier = call.get("id") if isinstance(call, dict) else None
    return identifier if isinstance(identifier, str) else ""


def _read_result_id(message: Message) -> str | None:
    """Return the id of the call that a message answers, or None if it answers none."""
    identifier = message.get("tool_call_id", "")
    return identifier if message.get("role") == "tool" and isinstance(identifier, str) else None


def _shorten_ids(message: Message) -> Message:
    shortened = dict(message)
    if isinstance(reference := message.get("tool_call_id"), str):
        shortened["tool_call_id"] = _shorten_id(reference)
    if isinstance(calls := message.get("tool_calls"), list):
        shortened["tool_calls"] = [
            {**call, "id": _shorten_id(call["id"])}
            if isinstance(call, dict) and isinstance(call.get("id"), str)
            else call
            for call in calls
        ]
    return shortened


def _shorten_id(identifier: str) -> str:
    if len(identifier) == SHORT_ID_LENGTH and identifier.isalnum():
        return identifier
    return hashlib.sha256(identifier.encode(errors="replace")).hexdigest()[:SHORT_ID_LENGTH]


def _list_texts(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content if _has_text(part)] if isinstance(content, list) else []


def _has_text(part: object) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def _read_part(part: object) -> str:
    """Return the text of a content part, in the names of chat completions or of responses."""
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and isinstance(text := part.get("text", part.get("refusal")), str):
        return text
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise InvalidInputError(f"This model reads text only, and a message has a part of type {kind!r}; leave it out.")


def _copy(value: Any) -> Any:  # noqa: ANN401  # any JSON
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
