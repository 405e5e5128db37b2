"""Messages as chat templates take them: one system message, texts instead of parts, arguments as objects.

Templates of Hugging Face know `system`, and most of them only in the first place: so the texts of all `system` and
`developer` messages are merged into one first message (as llama.cpp and vLLM do), and none is dropped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pilotlight.errors import FieldError

SYSTEM_ROLES = frozenset({"system", "developer"})
SYSTEM_SEPARATOR = "\n\n"


def prepare_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Prepare messages for a template: merge system texts into a first message, and parse the arguments of calls."""
    systems = [message["content"] for message in messages if message["role"] in SYSTEM_ROLES]
    others = [prepare_message(message) for message in messages if message["role"] not in SYSTEM_ROLES]
    texts = [text for text in systems if text]
    return [{"role": "system", "content": SYSTEM_SEPARATOR.join(texts)}, *others] if texts else others


def prepare_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Prepare one message: templates join its content to text, so none is null."""
    prepared = {**message, "content": message.get("content") or ""}
    if message.get("tool_calls"):
        prepared["tool_calls"] = [prepare_tool_call(call) for call in message["tool_calls"]]
    return prepared


def prepare_tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Prepare an earlier call: its arguments are an object for templates, and JSON text in OpenAI's protocols."""
    function = dict(call["function"])
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        function["arguments"] = parse_arguments(function.get("name", ""), arguments)
    return {**call, "function": function}


def parse_arguments(name: str, text: str) -> dict[str, Any]:
    """Parse the arguments of an earlier call; no text is no argument."""
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, Any])
    except msgspec.DecodeError as exc:
        raise FieldError(
            f"The arguments of the call of {name!r} are no JSON object: {exc}; send them as the model wrote them.",
            param="messages",
        ) from exc
