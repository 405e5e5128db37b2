"""Tools that a model may call, and the calls in its text, in terms of no protocol."""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct


class Tool(Struct, frozen=True):
    """A function of the caller's that the model may ask for; `parameters` is the JSON schema of its arguments."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] = {}
    strict: bool = (
        False  # whether a schema that cannot be held exactly is refused, rather than held as far as it can be
    )

    def describe(self) -> dict[str, Any]:
        """Describe the tool in the form in which chat templates take it, which is that of OpenAI's chat completions."""
        parameters = dict(self.parameters) or {"type": "object", "properties": {}}
        function = {"name": self.name, "description": self.description or "", "parameters": parameters}
        return {"type": "function", "function": function}


class ToolChoice(Struct, frozen=True):
    """Whether the model calls tools: not at all, if it wants to, or in any case; and which, if not all are allowed."""

    mode: Literal["none", "auto", "required"] = "auto"
    names: tuple[str, ...] = ()  # of the tools that may be called; none: all of the request's


class ToolCall(Struct, frozen=True):
    """A call that the model asks for."""

    id: str
    name: str
    arguments: str  # JSON text, as the model wrote it


class TextPiece(Struct, frozen=True):
    """The next piece of the answer's text, outside any call."""

    text: str


class CallPiece(Struct, frozen=True):
    """The next piece of a call: the first has the id and the name, the others have the next part of the arguments."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


MessagePiece = TextPiece | CallPiece
