"""Finds the calls of tools in a model's text while it comes, and gives text and calls out in pieces.

Each character is looked at once, so that it does not matter where the text is split. No marker, or part of one, comes
out as text, and neither do blanks between text and calls. Where the grammar made the text, a call goes out as it comes;
where nothing did, it goes out when it is whole, because one that turns out to be broken is text after all.
"""

import secrets
import string
from collections.abc import Callable, Collection
from enum import Enum
from typing import Any

import msgspec

from pilotlight.generation.call_reader import CallReader
from pilotlight.generation.tool_call_formats import ToolCallFormat
from pilotlight.generation.tools import CallPiece, MessagePiece, TextPiece, ToolCall

SHORT_ID_LENGTH, LONG_ID_LENGTH = 9, 24
ALPHABET = string.ascii_letters + string.digits


class _Place(Enum):
    """Where in the answer the next character stands."""

    TEXT = "text"  # outside calls, perhaps within a marker
    OPENED = "opened"  # behind the marker that opens a call or a list
    NAME = "name"  # in a name that stands before the arguments
    CALL = "call"  # in a call's JSON
    LIST = "list"  # between the calls of a list
    CLOSING = "closing"  # behind the JSON, where the closing marker is expected


class ToolCallStream:
    """Splits one choice's text into content and calls; `names` are those of the tools that it may call.

    `is_forced` says that a grammar held the text to valid calls. `content` and `tool_calls` hold what has come so far.
    """

    def __init__(
        self,
        form: ToolCallFormat,
        names: Collection[str],
        *,
        is_forced: bool = False,
        create_id: Callable[[], str] | None = None,
    ) -> None:
        self._form = form
        self._names = frozenset(names)
        self._is_forced = is_forced
        self._create_id = create_id or (lambda: create_call_id(is_short=form.has_short_ids))
        self._place = _Place.TEXT
        self._held = ""  # not given out yet: it may be a marker, or a call that is not whole
        self._reader = CallReader(form.arguments_key)
        self._sent: int | None = None  # characters of the arguments given out; None: the call has not been begun
        self._is_listed = False
        self._deltas: list[MessagePiece] = []
        self._content: list[str] = []
        self._calls: list[ToolCall] = []

    @property
    def content(self) -> str:
        """The text outside calls."""
        return "".join(self._content)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls, of which the last may have ended before it was whole."""
        return tuple(self._calls)

    def read(self, text: str) -> list[MessagePiece]:
        """Take the next piece of text, and return what is certain now."""
        if not self._names:
            self._emit_text(text)
        else:
            for character in text:
                self._take(character)
            if self._is_forced and self._place is _Place.CALL:
                self._emit_arguments()
        return self._drain()

    def finish(self) -> list[MessagePiece]:
        """Return what was held back, at the end of the text."""
        if self._place is _Place.TEXT:
            self._emit_text("" if self._calls and not self._held.strip() else self._held)
        elif self._place in {_Place.OPENED, _Place.NAME, _Place.CALL} and self._sent is None and not self._is_forced:
            self._emit_text(self._held)
        self._held, self._place = "", _Place.TEXT
        return self._drain()

    def _drain(self) -> list[MessagePiece]:
        deltas, self._deltas = _join_deltas(self._deltas), []
        return deltas

    def _take(self, character: str) -> None:
        match self._place:
            case _Place.TEXT:
                self._take_text(character)
            case _Place.OPENED:
                self._take_opened(character)
            case _Place.NAME:
                self._take_name(character)
            case _Place.CALL:
                self._take_call(character)
            case _Place.LIST:
                self._take_list(character)
            case _Place.CLOSING:
                self._take_closing(character)

    def _take_text(self, character: str) -> None:
        """Hold what may be blanks and the beginning of a marker; give out the rest."""
        self._held += character
        while self._held:
            marker = self._held.lstrip()
            if marker == self._form.opening:
                self._enter(_Place.OPENED)
                return
            if marker == "{" and self._form.is_bare and not self._content and not self._calls:
                self._enter(_Place.OPENED)
                self._held = self._held[:-1]
                self._take_opened(character)
                return
            if self._form.opening.startswith(marker):
                return
            self._emit_text(self._held[0])
            self._held = self._held[1:]

    def _take_opened(self, character: str) -> None:
        """Expect a call, a list of calls, or a name."""
        if self._form.name_end is not None and not character.isspace():
            self._enter(_Place.NAME)
            self._reader = CallReader(self._form.arguments_key)
            self._take_name(character)
        elif character == "{":
            self._begin_call(character)
        elif character == "[" and not self._is_listed:
            self._held += character
            self._is_listed = True
        elif character.isspace():
            self._held += character
        else:
            self._give_back(character)

    def _take_name(self, character: str) -> None:
        """Collect the name that stands before the arguments; `_held` begins with the opening marker."""
        self._held += character
        name_end = self._form.name_end or ""
        name = self._held.split(self._form.opening, 1)[1].strip()
        if name.endswith(name_end):
            self._reader.name = name.removesuffix(name_end).strip()
            self._reader.begin_arguments()
            self._enter(_Place.CALL)
        elif not any((known + name_end).startswith(name) for known in self._names):
            held, self._held = self._held[:-1], ""
            self._emit_text(held)
            self._enter(_Place.TEXT)
            self._take_text(character)

    def _begin_call(self, character: str) -> None:
        self._reader = CallReader(self._form.arguments_key)
        self._sent = None
        self._enter(_Place.CALL)
        self._take_call(character)

    def _take_call(self, character: str) -> None:
        """Read on in a call's JSON, and give out what is certain of it."""
        if self._sent is None:
            self._held += character
        self._reader.take(character)
        if self._reader.is_broken:
            self._give_back("")
        elif self._reader.is_complete:
            self._end_call()

    def _end_call(self) -> None:
        """Give out the rest of a call that is whole, or its text if it is none."""
        if self._sent is not None:
            self._emit_arguments()
        if self._sent is None:
            if (arguments := self._read_arguments()) is None:
                self._give_back("")
                return
            self._emit_call(arguments)
        self._sent, self._held = None, ""
        self._enter(_Place.LIST if self._is_listed else _Place.CLOSING)

    def _take_list(self, character: str) -> None:
        """Expect another call of the list, or its end."""
        if character == "{":
            self._begin_call(character)
        elif character == "]":
            self._enter(_Place.CLOSING)
        elif character != "," and not character.isspace():
            self._enter(_Place.TEXT)
            self._take_text(character)

    def _take_closing(self, character: str) -> None:
        """Expect the closing marker; whatever else comes is text, which may open the next call."""
        self._held += character
        marker = self._held.lstrip()
        if self._form.closing and marker == self._form.closing:
            self._held = ""
        elif not self._form.closing or not self._form.closing.startswith(marker):
            held, self._held = self._held, ""
            self._is_listed = False
            self._enter(_Place.TEXT)
            for each in held:
                self._take_text(each)
            return
        else:
            return
        self._is_listed = False
        self._enter(_Place.TEXT)

    def _enter(self, place: _Place) -> None:
        self._place = place

    def _give_back(self, character: str) -> None:
        """Give out as text what was no call."""
        held, self._held = self._held, ""
        self._emit_text(held)
        self._is_listed, self._sent = False, None
        self._enter(_Place.TEXT)
        if character:
            self._take_text(character)

    def _emit_text(self, text: str) -> None:
        if text:
            self._content.append(text)
            self._deltas.append(TextPiece(text))

    def _read_arguments(self) -> str | None:
        """Return the arguments' text if the call is one of a tool that there is, with an object as arguments."""
        if self._reader.name not in self._names or (text := self._reader.arguments) is None:
            return None
        arguments = _decode(text)
        if isinstance(arguments, str):  # some models write the arguments as JSON within a string
            text, arguments = arguments, _decode(arguments)
        return text if isinstance(arguments, dict) else None

    def _emit_arguments(self) -> None:
        """Give out the next piece of the arguments, if the call is known to be one."""
        text = self._reader.object_so_far
        if text is None or self._reader.name not in self._names:
            return
        if self._sent is None:
            self._emit_call("")
            self._sent = 0
        if piece := text[self._sent :]:
            self._sent = len(text)
            last = self._calls[-1]
            self._calls[-1] = ToolCall(last.id, last.name, text)
            self._deltas.append(CallPiece(len(self._calls) - 1, arguments=piece))

    def _emit_call(self, arguments: str) -> None:
        """Give out a call's beginning, and its arguments as far as they are there."""
        call = ToolCall(self._create_id(), self._reader.name or "", arguments)
        self._calls.append(call)
        index = len(self._calls) - 1
        self._deltas.append(CallPiece(index, call.id, call.name))
        if arguments:
            self._deltas.append(CallPiece(index, arguments=arguments))


def create_call_id(*, is_short: bool = False) -> str:
    """Create the id of a call, in OpenAI's form or in the nine letters and digits of Mistral's templates."""
    length = SHORT_ID_LENGTH if is_short else LONG_ID_LENGTH
    letters = "".join(secrets.choice(ALPHABET) for _ in range(length))
    return letters if is_short else f"call_{letters}"


def _decode(text: str) -> Any:  # noqa: ANN401  # any JSON
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def _join_deltas(deltas: list[MessagePiece]) -> list[MessagePiece]:
    """Join neighbours that say more of the same."""
    joined: list[MessagePiece] = []
    for delta in deltas:
        last = joined[-1] if joined else None
        if isinstance(delta, TextPiece) and isinstance(last, TextPiece):
            joined[-1] = TextPiece(last.text + delta.text)
        elif (
            isinstance(delta, CallPiece)
            and isinstance(last, CallPiece)
            and delta.id is None
            and last.id is None
            and delta.index == last.index
        ):
            joined[-1] = CallPiece(delta.index, arguments=last.arguments + delta.arguments)
        else:
            joined.append(delta)
    return joined
