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
from datetime import datetime
from typing import Literal

from msgspec import Struct

from pilotlight.contracts.names import ModelReference
from pilotlight.errors import InvalidInputError, NotFoundError

MAX_LISTED_ERRORS = 1000  # listed; all of them are lines of the result
BATCHES_FOLDER = "batches"
RESULTS_FOLDER = "outbox/batches/"
INFER_PATTERN = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
BATCH_ID_PATTERN = re.compile(r"batch_([0-9a-f]{32})")


class LineError(Struct, frozen=True, omit_defaults=True):
    """A line that has no answer, and why."""

    line: int
    error: str
    code: str = ""  # of a batch that is refused as a whole, in OpenAI's words


class ResultPart(Struct, frozen=True):
    """What was answered to the bytes of the input from `start` to before `end`."""

    start: int
    end: int
    answers: bool = True  # whether there are some
    refusals: bool = False  # whether there are some that stand apart from the answers

    @property
    def object_name(self) -> str:
        """As an object: in the order of the input, and of its own for each extent."""
        return f"parts/{self.start:015d}-{self.end:015d}.jsonl"

    @property
    def errors_name(self) -> str:
        """The object with the refusals."""
        return f"parts/{self.start:015d}-{self.end:015d}.errors.jsonl"


class ByteRange(Struct, frozen=True):
    """Bytes of the input that one worker after the other answers; other spans have workers of their own."""

    start: int
    end: int
    first: int  # lines before it
    position: int  # all before it is answered
    line: int  # the last one that is answered
    worker: str = ""  # who wrote this last

    @property
    def is_done(self) -> bool:
        """Whether all of it is answered."""
        return self.position >= self.end


class FileProgress(Struct, frozen=True, kw_only=True):
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
    errors: tuple[LineError, ...] = ()
    parts: tuple[ResultPart, ...] = ()
    spans: tuple[ByteRange, ...] = ()  # one after the other, the whole file
    refused: str = ""  # why no line is answered
    invocations: int = 0
    worker: str = ""  # who wrote this last
    started: str = ""
    joining: str = ""  # since when the parts are put together
    updated: str = ""


class BatchManifest(Struct, frozen=True, kw_only=True):
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
    errors: tuple[LineError, ...] = ()  # the first thousand
    invocations: int = 1
    started: str = ""
    joining: str = ""
    ended: str = ""


class BatchRequest(Struct, frozen=True, kw_only=True):
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
    def results_folder(self) -> str:
        """Where its results lie."""
        return results_folder(self.id)


class BatchCancellation(Struct, frozen=True):
    """`cancel.json`: that somebody wants no more of it."""

    at: int
    by: str = ""


def to_unix_seconds(timestamp: str) -> int | None:
    """The Unix seconds of what `format_utc_now` wrote; None for an empty text."""
    return int(datetime.fromisoformat(timestamp).timestamp()) if timestamp else None


def generate_sortable_id() -> str:
    """32 hexadecimal digits that sort by the time they were made at; 80 bits of them are random."""
    return f"{int(time.time() * 1000):012x}{secrets.token_hex(10)}"


def batch_document_path(batch_id: str, document: str) -> str:
    """The path of a batch's `order` or `cancel`; `NotFoundError` for what is no batch's id."""
    match = BATCH_ID_PATTERN.fullmatch(batch_id)
    if match is None:
        raise NotFoundError(f"There is no batch {batch_id!r}; GET /v1/batches lists them.")
    return f"{BATCHES_FOLDER}/{match[1]}/{document}.json"


def parse_model_endpoint(endpoint: str) -> ModelReference:
    """The model of an endpoint; `InvalidInputError` for what is no V2 inference."""
    match = INFER_PATTERN.fullmatch(endpoint)
    if match is None:
        raise InvalidInputError(f"{endpoint!r} is not an endpoint of batches; /v2/models/NAME/infer is.")
    return ModelReference.from_selector(match[1], match[2])


def results_folder(batch_id: str) -> str:
    """The folder of a batch's results."""
    return f"{RESULTS_FOLDER}{batch_id.removeprefix('batch_')}"
