"""Parse lines and format their answers: bodies of the inbox, or OpenAI's batch requests with ids of their own.

    {"line": 7, "model_name": ..., "outputs": [...]}       the inbox; an error is a line of the result too
    {"id", "custom_id", "response": {"status_code", "request_id", "body"}, "error"}      a batch; errors have a file

Source of the latter: OpenAI's Batch API. It knows forms, not models or stores.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
from msgspec import Raw, Struct, structs

from functions.batch_worker.inputs import BatchCall, InferenceInput, JsonInput
from functions.batch_worker.record_reader import FileLine, InputItem
from pilotlight.api.router import get_status_code
from pilotlight.api.v2_json import replace_nan
from pilotlight.contracts.batch import MAX_LISTED_ERRORS, LineError, parse_model_endpoint
from pilotlight.errors import PilotlightError, shorten_message

MAX_REQUESTS = 1_000_000  # of a batch: each one's id is remembered while it is examined, in 100 bytes
TOO_LONG = "The line is longer than 6,000,000 bytes; send fewer items in each."


class LineFormat(Protocol):
    """A format of lines and of their answers."""

    has_error_file: bool  # whether errors go to an object of their own

    def validate_lines(self, file_lines: Iterable[FileLine]) -> tuple[int, Sequence[LineError]]:
        """Count the requests of the whole file, and list the errors for which all of it is refused."""

    def parse_line(self, data: bytes) -> InferenceInput:
        """Parse one line; raise `InvalidInputError` for one that cannot be read."""

    def format_answer(self, item: InputItem, text: bytes) -> bytes:
        """Format the line of the result for a V2 answer."""

    def format_error(self, item: InputItem, error: PilotlightError) -> bytes:
        """Format the line for an item without an answer."""


class InboxFormat:
    """The inbox: a V2 body or a record in each line; errors take their place among the answers."""

    has_error_file = False

    def validate_lines(self, file_lines: Iterable[FileLine]) -> tuple[int, Sequence[LineError]]:
        """Accept every file: an error in one line does not affect the others."""
        return 0, ()

    def parse_line(self, data: bytes) -> InferenceInput:
        """Parse a body in JSON."""
        return JsonInput.parse(data)

    def format_answer(self, item: InputItem, text: bytes) -> bytes:
        """Format the answer with the number of its line."""
        return b'{"line":%d,%b\n' % (item.number, text[1:])

    def format_error(self, item: InputItem, error: PilotlightError) -> bytes:
        """Format the error with the number of its line."""
        return msgspec.json.encode(LineError(item.number, shorten_message(str(error)))) + b"\n"


class BatchRequestLine(Struct):
    """A line of a batch."""

    custom_id: str
    url: str
    body: Raw
    method: str = "POST"


REQUEST_DECODER = msgspec.json.Decoder(BatchRequestLine)
NAN_STAND_IN = b"0e0"  # a number as long as NaN, so that the body lies where it lay


def decode_request_line(data: bytes) -> BatchRequestLine:
    """Decode a line; NaN, which is no JSON, stays in its body, where V2's decoder takes it."""
    try:
        return REQUEST_DECODER.decode(data)
    except msgspec.DecodeError:
        plain = replace_nan(data, NAN_STAND_IN)
        if plain is None:
            raise
    call = REQUEST_DECODER.decode(plain)
    body = bytes(call.body)
    start = plain.index(body)
    return structs.replace(call, body=Raw(data[start : start + len(body)]))


@dataclass(frozen=True)
class OpenAIBatchFormat:
    """A batch: requests to one endpoint, each with an id that its answer carries."""

    batch_id: str
    endpoint: str
    has_error_file = True

    def validate_lines(self, file_lines: Iterable[FileLine]) -> tuple[int, Sequence[LineError]]:
        """Check every line before any is answered; list at most a thousand errors, for which the batch is refused."""
        total, errors, ids = 0, [], set[bytes]()
        for line in file_lines:
            if line.data is not None and not line.data.strip():
                continue
            total += 1
            problem = self._find_problem(line, ids) if total <= MAX_REQUESTS else to_limit_error(line)
            if problem is not None:
                errors.append(problem)
            if len(errors) == MAX_LISTED_ERRORS or total > MAX_REQUESTS:
                break
        if total == 0:
            errors.append(LineError(1, "The file holds no request.", "empty_file"))
        return total, errors

    def parse_line(self, data: bytes) -> InferenceInput:
        """Parse a call; since the file was validated, only its body may be wrong."""
        call = decode_request_line(data)
        return BatchCall(bytes(call.body), call.custom_id, parse_model_endpoint(call.url))

    def format_answer(self, item: InputItem, text: bytes) -> bytes:
        """Format a line of the output file."""
        return self._format_line(item, 200, Raw(text))

    def format_error(self, item: InputItem, error: PilotlightError) -> bytes:
        """Format a line of the error file."""
        return self._format_line(item, get_status_code(error), {"error": shorten_message(str(error))})

    def _format_line(self, item: InputItem, status: int, body: object) -> bytes:
        key = hashlib.sha256(f"{self.batch_id}/{item.number}".encode()).hexdigest()[:24]  # the same in every attempt
        custom = item.body.custom_id if isinstance(item.body, BatchCall) else None
        response = {"status_code": status, "request_id": f"{self.batch_id}-{item.number}", "body": body}
        record = {"id": f"batch_req_{key}", "custom_id": custom, "response": response, "error": None}
        return msgspec.json.encode(record) + b"\n"

    def _find_problem(self, line: FileLine, ids: set[bytes]) -> LineError | None:
        if line.data is None:
            return LineError(line.number, TOO_LONG, "line_too_long")
        try:
            call = decode_request_line(line.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            reason = f"The line is no request with custom_id, method, url and body: {exc}."
            return LineError(line.number, reason, "invalid_json_line")
        if call.method != "POST":
            return LineError(line.number, f"The method is {call.method!r}, not POST.", "invalid_method")
        if call.url != self.endpoint:
            return LineError(
                line.number, f"The url {call.url!r} is not the batch's {self.endpoint!r}.", "mismatched_url"
            )
        count_before, key = len(ids), hashlib.blake2b(call.custom_id.encode(), digest_size=16).digest()
        ids.add(key)
        if len(ids) == count_before:
            return LineError(line.number, f"The custom_id {call.custom_id!r} is there twice.", "duplicate_custom_id")
        return None


def to_limit_error(line: FileLine) -> LineError:
    """Create the error of the line at which a batch exceeds its limit of requests."""
    return LineError(line.number, f"A batch has at most {MAX_REQUESTS:,} requests; make several.", "too_many_tasks")
