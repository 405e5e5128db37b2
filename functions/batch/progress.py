"""The documents of a file that is being answered: how far it is, and in the end what came of it."""

from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

MOST_ERRORS = 1000  # listed; all of them are lines of the result


class Wrong(Struct, frozen=True):
    """A line that has no answer, and why."""

    line: int
    error: str


class Part(Struct, frozen=True):
    """The answers to the bytes of the input from `start` to before `end`."""

    start: int
    end: int

    @property
    def name(self) -> str:
        """As an object: in the order of the input, and of its own for each extent."""
        return f"parts/{self.start:015d}-{self.end:015d}.jsonl"


class Progress(Struct, frozen=True, kw_only=True):
    """How far a file is answered; written by compare-and-swap, so that two workers cannot both go on."""

    input: str
    bytes: int
    e_tag: str
    state: Literal["working", "done"] = "working"
    percent: float = 0.0
    position: int = 0  # in bytes of the input, all before it is answered
    line: int = 0
    answered: int = 0
    failed: int = 0
    correlation: str = ""  # of the upload
    tenant: str = ""  # who uploaded it
    model: str = ""  # that answers lines which name none; its version stays the same to the end
    versions: tuple[str, ...] = ()  # that have answered
    errors: tuple[Wrong, ...] = ()
    parts: tuple[Part, ...] = ()
    invocations: int = 0
    worker: str = ""  # who wrote this last
    started: str = ""
    updated: str = ""


class Summary(Struct, frozen=True, kw_only=True):
    """`manifest.json`: what came of a file. It is written last: while there is none, the result is not whole."""

    input: str
    bytes: int
    e_tag: str
    sha256: str  # of the input
    result: str  # path of the answers; empty where the file was refused
    refused: str = ""  # why no line was read
    correlation: str = ""
    lines: int = 0
    answered: int = 0
    failed: int = 0
    versions: tuple[str, ...] = ()
    errors: tuple[Wrong, ...] = ()  # the first thousand
    invocations: int = 1
    started: str = ""
    ended: str = ""


def now() -> str:
    """RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
