"""Work that nobody waits for, as documents: what was asked, how far it is, what came of it, and where each lies.

    batches/<id>/order.json           a batch as it was ordered; create-only
    batches/<id>/cancel.json          that it is to stop; create-only
    outbox/batches/<id>/...           its progress.json, parts/, output.jsonl, errors.jsonl, manifest.json (last)

The function that is asked writes the first two, the one that answers all others, so that neither overwrites the other.
It knows names and forms, not stores.
"""

import re
import secrets
import time
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

from pilotlight.contracts.manifest import Reference
from pilotlight.errors import InvalidInputError, NotFoundError

MOST_ERRORS = 1000  # listed; all of them are lines of the result
ORDERS = "batches"
RESULTS = "outbox/batches/"
INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
BATCH = re.compile(r"batch_([0-9a-f]{32})")


class Wrong(Struct, frozen=True, omit_defaults=True):
    """A line that has no answer, and why."""

    line: int
    error: str
    code: str = ""  # of a batch that is refused as a whole, in OpenAI's words


class Part(Struct, frozen=True):
    """What was answered to the bytes of the input from `start` to before `end`."""

    start: int
    end: int
    answers: bool = True  # whether there are some
    refusals: bool = False  # whether there are some that stand apart from the answers

    @property
    def name(self) -> str:
        """As an object: in the order of the input, and of its own for each extent."""
        return f"parts/{self.start:015d}-{self.end:015d}.jsonl"

    @property
    def errors(self) -> str:
        """The object with the refusals."""
        return f"parts/{self.start:015d}-{self.end:015d}.errors.jsonl"


class Span(Struct, frozen=True):
    """Bytes of the input that one worker after the other answers; other spans have workers of their own."""

    start: int
    end: int
    first: int  # lines before it
    position: int  # all before it is answered
    line: int  # the last one that is answered
    worker: str = ""  # who wrote this last

    @property
    def done(self) -> bool:
        """Whether all of it is answered."""
        return self.position >= self.end


class Progress(Struct, frozen=True, kw_only=True):
    """How far a file is answered; written by compare-and-swap, so that two workers cannot both go on with a span."""

    input: str
    bytes: int
    e_tag: str
    state: Literal["working", "done"] = "working"
    percent: float = 0.0
    position: int = 0  # how many bytes of the input are answered
    line: int = 0  # how many of its lines are passed
    total: int = 0  # requests in it, where they were counted first
    answered: int = 0
    failed: int = 0
    correlation: str = ""  # of the upload
    tenant: str = ""  # who uploaded it
    model: str = ""  # that answers lines which name none; its version stays the same to the end
    versions: tuple[str, ...] = ()  # that have answered
    errors: tuple[Wrong, ...] = ()
    parts: tuple[Part, ...] = ()
    spans: tuple[Span, ...] = ()  # one after the other, the whole file
    refused: str = ""  # why no line is answered
    invocations: int = 0
    worker: str = ""  # who wrote this last
    started: str = ""
    joining: str = ""  # since when the parts are put together
    updated: str = ""


class Summary(Struct, frozen=True, kw_only=True):
    """`manifest.json`: what came of a file. It is written last: while there is none, the result is not whole."""

    input: str
    bytes: int
    e_tag: str
    sha256: str  # of the input
    result: str  # path of the answers; empty where the file was refused
    refusals: str = ""  # path of the refusals, where those stand apart
    refused: str = ""  # why no line was answered
    stopped: Literal["", "cancelled", "expired"] = ""  # why it is not whole
    correlation: str = ""
    lines: int = 0
    total: int = 0
    answered: int = 0
    failed: int = 0
    versions: tuple[str, ...] = ()
    errors: tuple[Wrong, ...] = ()  # the first thousand
    invocations: int = 1
    started: str = ""
    joining: str = ""
    ended: str = ""


class Order(Struct, frozen=True, kw_only=True):
    """`order.json`: a batch as it was asked for. Times are Unix seconds."""

    id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    metadata: dict[str, str] | None = None
    by: str = ""

    @property
    def folder(self) -> str:
        """Where its results lie."""
        return results(self.id)


class Cancel(Struct, frozen=True):
    """`cancel.json`: that somebody wants no more of it."""

    at: int
    by: str = ""


def now() -> str:
    """RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def seconds(moment: str) -> int | None:
    """The Unix seconds of what `now` wrote; None for an empty text."""
    return int(datetime.fromisoformat(moment).timestamp()) if moment else None


def new_id() -> str:
    """32 hexadecimal digits that sort by the time they were made at; 80 bits of them are random."""
    return f"{int(time.time() * 1000):012x}{secrets.token_hex(10)}"


def of_batch(name: str, what: str) -> str:
    """The path of a batch's `order` or `cancel`; `NotFoundError` for what is no batch's id."""
    found = BATCH.fullmatch(name)
    if found is None:
        raise NotFoundError(f"There is no batch {name!r}; GET /v1/batches lists them.")
    return f"{ORDERS}/{found[1]}/{what}.json"


def model_of(endpoint: str) -> Reference:
    """The model of an endpoint; `InvalidInputError` for what is no V2 inference."""
    found = INFER.fullmatch(endpoint)
    if found is None:
        raise InvalidInputError(f"{endpoint!r} is not an endpoint of batches; /v2/models/NAME/infer is.")
    return Reference.select(found[1], found[2])


def results(name: str) -> str:
    """The folder of a batch's results."""
    return f"{RESULTS}{name.removeprefix('batch_')}"
