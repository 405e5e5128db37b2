"""What lines ask and how they are answered: bodies in the inbox, or OpenAI's batch requests with an id of their own.

    {"line": 7, "model_name": ..., "outputs": [...]}       the inbox; a refusal is a line of the result too
    {"id", "custom_id", "response": {"status_code", "request_id", "body"}, "error"}      a batch; refusals stand apart

Source of the latter: OpenAI's Batch API. It knows forms, not models or stores.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
from msgspec import Raw, Struct

from functions.batch_worker.inputs import Body, Call, Json
from functions.batch_worker.line_reader import Item, Line
from pilotlight.api.router import status_of
from pilotlight.contracts.batch import MOST_ERRORS, Wrong, model_of
from pilotlight.errors import PilotlightError

MOST_REQUESTS = 1_000_000  # of a batch: each one's id is remembered while it is examined, in 100 bytes
TOO_LONG = "The line is longer than 6,000,000 bytes; send fewer items in each."


class Form(Protocol):
    """One way to ask in lines."""

    apart: bool  # whether refusals stand in an object of their own

    def examined(self, found: Iterable[Line]) -> tuple[int, Sequence[Wrong]]:
        """How many requests the whole file holds, and why it is refused as a whole."""

    def parsed(self, data: bytes) -> Body:
        """One line; `InvalidInputError` for one that cannot be read."""

    def answer(self, item: Item, text: bytes) -> bytes:
        """The line of the result for a V2 answer."""

    def refusal(self, item: Item, error: PilotlightError) -> bytes:
        """The line for one that has no answer."""


class Plain:
    """The inbox: a V2 body or a record in each line; errors stand in their place among the answers."""

    apart = False

    def examined(self, found: Iterable[Line]) -> tuple[int, Sequence[Wrong]]:
        """Nothing: what is wrong with one line does not concern the others."""
        return 0, ()

    def parsed(self, data: bytes) -> Body:
        """A body in JSON."""
        return Json.read(data)

    def answer(self, item: Item, text: bytes) -> bytes:
        """The answer behind the number of its line."""
        return b'{"line":%d,%b\n' % (item.number, text[1:])

    def refusal(self, item: Item, error: PilotlightError) -> bytes:
        """What is wrong behind the number of its line."""
        return msgspec.json.encode(Wrong(item.number, str(error))) + b"\n"


class CallBody(Struct):
    """A line of a batch."""

    custom_id: str
    url: str
    body: Raw
    method: str = "POST"


CALL = msgspec.json.Decoder(CallBody)


@dataclass(frozen=True)
class Calls:
    """A batch: requests to one endpoint, each with an id that the answer carries."""

    batch: str
    endpoint: str
    apart = True

    def examined(self, found: Iterable[Line]) -> tuple[int, Sequence[Wrong]]:
        """Every line, before any is answered; a batch is refused as a whole, with the first thousand reasons."""
        total, wrong, ids = 0, [], set[bytes]()
        for line in found:
            if line.data is not None and not line.data.strip():
                continue
            total += 1
            problem = self._problem(line, ids) if total <= MOST_REQUESTS else too_many(line)
            if problem is not None:
                wrong.append(problem)
            if len(wrong) == MOST_ERRORS or total > MOST_REQUESTS:
                break
        if total == 0:
            wrong.append(Wrong(1, "The file holds no request.", "empty_file"))
        return total, wrong

    def parsed(self, data: bytes) -> Body:
        """A call; the whole file has been examined, so that only its body may be wrong."""
        call = CALL.decode(data)
        return Call(bytes(call.body), call.custom_id, model_of(call.url))

    def answer(self, item: Item, text: bytes) -> bytes:
        """A line of the output file."""
        return self._line(item, 200, Raw(text))

    def refusal(self, item: Item, error: PilotlightError) -> bytes:
        """A line of the error file."""
        return self._line(item, status_of(error), {"error": str(error)})

    def _line(self, item: Item, status: int, body: object) -> bytes:
        key = hashlib.sha256(f"{self.batch}/{item.number}".encode()).hexdigest()[:24]  # the same in every attempt
        custom = item.body.custom_id if isinstance(item.body, Call) else None
        response = {"status_code": status, "request_id": f"{self.batch}-{item.number}", "body": body}
        said = {"id": f"batch_req_{key}", "custom_id": custom, "response": response, "error": None}
        return msgspec.json.encode(said) + b"\n"

    def _problem(self, line: Line, ids: set[bytes]) -> Wrong | None:
        if line.data is None:
            return Wrong(line.number, TOO_LONG, "line_too_long")
        try:
            call = CALL.decode(line.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            why = f"The line is no request with custom_id, method, url and body: {exc}."
            return Wrong(line.number, why, "invalid_json_line")
        if call.method != "POST":
            return Wrong(line.number, f"The method is {call.method!r}, not POST.", "invalid_method")
        if call.url != self.endpoint:
            return Wrong(line.number, f"The url {call.url!r} is not the batch's {self.endpoint!r}.", "mismatched_url")
        known, key = len(ids), hashlib.blake2b(call.custom_id.encode(), digest_size=16).digest()
        ids.add(key)
        if len(ids) == known:
            return Wrong(line.number, f"The custom_id {call.custom_id!r} is there twice.", "duplicate_custom_id")
        return None


def too_many(line: Line) -> Wrong:
    """Why a batch is not read any further."""
    return Wrong(line.number, f"A batch has at most {MOST_REQUESTS:,} requests; make several.", "too_many_tasks")
