"""Reads the JSON object of one call while it comes, character by character."""

import msgspec

NAME_KEY = "name"
OPENING, CLOSING = "{[", "}]"


class CallReader:
    """Finds the name and the arguments in a call's JSON; `arguments` is the value as it was written.

    Only the braces and strings are followed, which is enough to know where a value ends. Whether it is JSON is for
    whoever reads the value.
    """

    def __init__(self, arguments_key: str) -> None:
        self.name: str | None = None
        self.is_complete = False
        self.is_broken = False  # it can be no object any more
        self._arguments_key = arguments_key
        self._depth = 0
        self._base = 1  # the depth at which keys stand
        self._key: str | None = None
        self._in_string = False
        self._is_escaped = False
        self._string = ""  # the last string at the base, with its quotes
        self._value: list[str] | None = None  # the arguments, once they have begun
        self._has_ended = False  # the arguments

    def begin_arguments(self) -> None:
        """Take what comes next as the arguments alone, because the name stood before them."""
        self._base, self._value = 0, []

    @property
    def arguments(self) -> str | None:
        """The text of the arguments' value, or None if none has begun."""
        return None if self._value is None else "".join(self._value).strip()

    @property
    def object_so_far(self) -> str | None:
        """The text of the arguments as far as they have come, if they are an object."""
        text = self.arguments
        return text if text and text[0] == "{" else None

    def take(self, character: str) -> None:
        """Take the next character."""
        if self._in_string:
            self._take_in_string(character)
        elif character == '"':
            self._in_string, self._string = True, '"'
            self._keep(character)
        elif character in OPENING:
            self._depth += 1
            if self._depth > self._base or self._base == 0:
                self._keep(character)
        elif character in CLOSING:
            self._close(character)
        else:
            self._take_between(character)

    def _take_in_string(self, character: str) -> None:
        self._keep(character)
        if self._depth <= self._base:
            self._string += character
        if self._is_escaped:
            self._is_escaped = False
        elif character == "\\":
            self._is_escaped = True
        elif character == '"':
            self._in_string = False
            if self._key == NAME_KEY and self._depth == self._base:
                self.name = _decode_string(self._string)

    def _take_between(self, character: str) -> None:
        """Take a character outside strings and brackets: of a number, a word, or between values."""
        if self._depth == 0 and not character.isspace():
            self.is_broken = True
        elif self._depth != self._base or self._base == 0:
            self._keep(character)
        elif character == ":" and self._key is None:
            self._key = _decode_string(self._string)
            if self._key == self._arguments_key and self._value is None:
                self._value = []
        elif character == ",":
            self._end_value()
        else:
            self._keep(character)

    def _close(self, character: str) -> None:
        self._depth -= 1
        if self._depth >= self._base or self._base == 0:
            self._keep(character)
        if self._depth <= 0:
            self._end_value()
            self.is_complete = True

    def _keep(self, character: str) -> None:
        """Keep a character if it belongs to the arguments."""
        if self._value is not None and not self._has_ended:
            self._value.append(character)

    def _end_value(self) -> None:
        self._has_ended = self._value is not None
        self._key = None


def _decode_string(text: str) -> str | None:
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.DecodeError:
        return None
