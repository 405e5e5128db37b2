"""Documents of asynchronous inference: what was requested, the progress and the result, and the path of each.

    batches/<id>/order.json           a batch as it was requested; create-only
    batches/<id>/cancel.json          the request to stop it; create-only
    outbox/batches/<id>/...           its progress.json, parts/, output.jsonl, errors.jsonl, manifest.json (last)

The API function writes the first two, the worker all others, so that neither overwrites the other's. A tenant's lie
below `batches/tenant=<name>/` and `outbox/batches/tenant=<name>/` (pilotlight.contracts.tenant). The module knows names
and forms, not stores.
"""

import re
import secrets
import time
from datetime import datetime
from typing import Literal

from msgspec import Struct

from pilotlight.contracts.names import ModelReference
from pilotlight.contracts.tenant import is_tenant_folder, tenant_folder
from pilotlight.contracts.upload import CONTENT
from pilotlight.errors import InvalidInputError, NotFoundError

MAX_LISTED_ERRORS = 1000  # in a document; all of them are lines of the result
BATCHES_FOLDER = "batches"
RESULTS_FOLDER = "outbox/batches/"
INFER_PATTERN = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
BATCH_ID_PATTERN = re.compile(r"batch_([0-9a-f]{32})")


class LineError(Struct, frozen=True, omit_defaults=True):
    """A line without an answer, and why."""

    line: int
    error: str
    code: str = ""  # of a batch that is refused as a whole, as in OpenAI's API


class ResultPart(Struct, frozen=True):
    """The answers to the input's bytes from `start` to before `end`."""

    start: int
    end: int
    answers: bool = True  # whether there are any
    refusals: bool = False  # whether there are any in a separate object

    @property
    def object_name(self) -> str:
        """The object with the answers: its name sorts in the order of the input, and differs for each extent."""
        return f"parts/{self.start:015d}-{self.end:015d}.jsonl"

    @property
    def errors_name(self) -> str:
        """The object with the refusals."""
        return f"parts/{self.start:015d}-{self.end:015d}.errors.jsonl"


class Block(Struct, frozen=True):
    """What a worker answers now. If it is still noted when the next worker comes, its worker ended without a word."""

    end: int  # byte of the input
    is_single: bool = False  # one line alone


class Caution(Struct, frozen=True):
    """How a range is answered after a worker has ended without a word: in blocks, each noted before it is begun."""

    block_bytes: int  # of a block, of one line at least
    suspect_end: int  # byte before which the cause lies
    end: int  # byte from which on the range is answered as usual
    sets_aside: bool = False  # the next line has ended a process alone, and is not tried again


class ByteRange(Struct, frozen=True):
    """A range of the input that is answered by one worker at a time; other ranges have workers of their own."""

    start: int
    end: int
    first: int  # lines before it
    position: int  # everything before it is answered
    line: int  # the last one that is answered
    worker: str = ""  # the worker that wrote this last
    block: Block | None = None
    caution: Caution | None = None

    @property
    def is_done(self) -> bool:
        """Whether all of it is answered."""
        return self.position >= self.end


class FileProgress(Struct, frozen=True, kw_only=True):
    """The progress of a file; written by compare-and-swap, so that two workers cannot both continue a range."""

    input: str
    bytes: int
    e_tag: str
    state: Literal["working", "done"] = "working"
    percent: float = 0.0
    position: int = 0  # how many bytes of the input are answered
    line: int = 0  # how many of its lines are processed
    total: int = 0  # requests in it, if they were counted first
    answered: int = 0
    failed: int = 0
    deaths: int = 0  # workers that ended without a word
    set_aside: int = 0  # lines that ended a process again and again, and have an error for an answer
    correlation: str = ""  # correlation id of the upload
    tenant: str = ""  # that uploaded it
    model: str = ""  # for lines that name none; its version stays the same to the end
    versions: tuple[str, ...] = ()  # that have answered
    errors: tuple[LineError, ...] = ()
    parts: tuple[ResultPart, ...] = ()
    spans: tuple[ByteRange, ...] = ()  # consecutive, the whole file
    refused: str = ""  # why no line is answered
    invocations: int = 0
    worker: str = ""  # the worker that wrote this last
    started: str = ""
    joining: str = ""  # when joining the parts began
    updated: str = ""


class BatchManifest(Struct, frozen=True, kw_only=True):
    """`manifest.json`: the result of a file. It is written last: without it, the result is not complete."""

    input: str
    bytes: int
    e_tag: str
    sha256: str  # of the input
    result: str  # path of the answers; empty if the file was refused
    refusals: str = ""  # path of the refusals, if they are a separate object
    refused: str = ""  # why no line was answered
    stopped: Literal["", "cancelled", "expired"] = ""  # why it is not complete
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
    """`order.json`: a batch as it was requested. Times are Unix seconds."""

    id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    metadata: dict[str, str] | None = None
    by: str = ""
    tenant: str = ""
    input_content: str = CONTENT  # the object with the bytes of the input file
    input_e_tag: str = ""  # of that object when the batch was requested; empty in older documents

    @property
    def results_folder(self) -> str:
        """The folder of its results."""
        return results_folder(self.id, self.tenant)

    @property
    def target(self) -> str:
        """What an event names to have it answered: its id, behind the tenant's folder if it has one."""
        return f"{tenant_folder('', self.tenant)}/{self.id}".lstrip("/")


class BatchCancellation(Struct, frozen=True):
    """`cancel.json`: a caller's request to stop the batch."""

    at: int
    by: str = ""


def to_unix_seconds(timestamp: str) -> int | None:
    """Convert what `format_utc_now` returned to Unix seconds; None for an empty text."""
    return int(datetime.fromisoformat(timestamp).timestamp()) if timestamp else None


def generate_sortable_id() -> str:
    """Generate 32 hexadecimal digits that sort by the time of their creation; 80 bits of them are random."""
    return f"{int(time.time() * 1000):012x}{secrets.token_hex(10)}"


def batch_document_path(batch_id: str, document: str, tenant: str = "") -> str:
    """Return the path of a batch's `order` or `cancel`; `NotFoundError` if the id is malformed."""
    return _document_path(tenant_folder(BATCHES_FOLDER, tenant), batch_id, document)


def is_batch_target(target: str) -> bool:
    """Return whether the target of an event is a batch, and not the URI of a file."""
    folder, _, batch_id = target.rpartition("/")
    return batch_id.startswith("batch_") and (not folder or is_tenant_folder(folder))


def batch_request_path(target: str) -> str:
    """Return the path of the request that a target names; `NotFoundError` if its id is malformed."""
    folder, _, batch_id = target.rpartition("/")
    return _document_path(f"{BATCHES_FOLDER}/{folder}" if folder else BATCHES_FOLDER, batch_id, "order")


def _document_path(folder: str, batch_id: str, document: str) -> str:
    match = BATCH_ID_PATTERN.fullmatch(batch_id)
    if match is None:
        raise NotFoundError(f"There is no batch {batch_id!r}; GET /v1/batches lists them.")
    return f"{folder}/{match[1]}/{document}.json"


def parse_model_endpoint(endpoint: str) -> ModelReference:
    """Parse the model of an endpoint; `InvalidInputError` if it is not a V2 inference."""
    match = INFER_PATTERN.fullmatch(endpoint)
    if match is None:
        raise InvalidInputError(f"{endpoint!r} is not an endpoint of batches; /v2/models/NAME/infer is.")
    return ModelReference.from_selector(match[1], match[2])


def results_folder(batch_id: str, tenant: str = "") -> str:
    """Return the folder of a batch's results."""
    return f"{tenant_folder(RESULTS_FOLDER.rstrip('/'), tenant)}/{batch_id.removeprefix('batch_')}"
