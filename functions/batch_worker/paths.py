"""Which addresses are files of the inbox, and what each one's results are called.

    inbox/<name>.jsonl     ->  outbox/<name>.jsonl        answers, a line for each
                               outbox/<name>/progress.json, parts/..., manifest.json (last)
    inbox/<name>.csv       ->  outbox/<name>.csv.jsonl, outbox/<name>.csv/...
    inbox/<name>.parquet   ->  outbox/<name>.parquet.jsonl, outbox/<name>.parquet/...
    inbox/<model>/...          the model that answers: digits, digits:3, digits@candidate

A file may also be the input of a batch that was ordered over HTTP; then it lies among the uploads, and its results
in the batch's folder. This module knows names; all that it reads is whether a batch is to stop.
"""

import time
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from functions.batch_worker.line_formats import Calls, Form, Plain
from pilotlight.contracts.batch import RESULTS, Order, of_batch
from pilotlight.contracts.upload import content
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.storage.object_store import ObjectStore

LINES = (".jsonl", ".ndjson")
IMAGES = (".png", ".jpg", ".jpeg")
TABLE = ".parquet"
KINDS = (*LINES, ".json", ".csv", TABLE, *IMAGES)
MESSAGES = "outbox/messages/"  # where answers to messages lie
PLAIN = Plain()


@dataclass(frozen=True)
class File:
    """One file of the inbox, by its path in the store."""

    path: str

    @property
    def kind(self) -> str:
        """Its suffix, which tells how it is read."""
        return PurePosixPath(self.path).suffix.lower()

    @property
    def model(self) -> str:
        """The folder that may be called as a model; empty where it lies directly in the inbox."""
        folders = self.path.split("/")[1:-1]
        return folders[0] if folders else ""

    @property
    def folder(self) -> str:
        """Where its parts, progress and manifest lie."""
        inner = self.path.removeprefix("inbox/")
        return f"outbox/{inner.removesuffix('.jsonl')}"

    @property
    def result(self) -> str:
        """Where its answers lie in the end."""
        return f"{self.folder}.jsonl"

    @property
    def refusals(self) -> str:
        """Where lines without an answer lie; empty where they stand among the answers."""
        return ""

    @property
    def form(self) -> Form:
        """How its lines are read and answered."""
        return PLAIN

    @property
    def unreadable(self) -> str:
        """Why nothing of it can be read, where that is known already."""
        return ""

    def stopped(self, store: ObjectStore) -> Literal["", "cancelled", "expired"]:
        """Why nobody is to go on with it; files of the inbox are answered to their end."""
        return ""


@dataclass(frozen=True)
class Ordered(File):
    """The input of a batch."""

    order: Order

    @classmethod
    def of(cls, order: Order) -> "Ordered":
        """The file that the order names."""
        return cls(content(order.input_file_id), order)

    @property
    def kind(self) -> str:
        """Always lines."""
        return ".jsonl"

    @property
    def model(self) -> str:
        """None: the endpoint names it."""
        return ""

    @property
    def folder(self) -> str:
        """The batch's own."""
        return self.order.folder

    @property
    def result(self) -> str:
        """What the output file holds."""
        return f"{self.folder}/output.jsonl"

    @property
    def refusals(self) -> str:
        """What the error file holds."""
        return f"{self.folder}/errors.jsonl"

    @property
    def form(self) -> Form:
        """Requests with ids."""
        return Calls(self.order.id, self.order.endpoint)

    def stopped(self, store: ObjectStore) -> Literal["", "cancelled", "expired"]:
        """Somebody has cancelled it, or its time is over."""
        if time.time() > self.order.expires_at:
            return "expired"
        try:
            store.size(of_batch(self.order.id, "cancel"))
        except NotFoundError:
            return ""
        return "cancelled"


def file(store: str, uri: str) -> File:
    """The file at an address; `InvalidInputError` for one that is not in the inbox of the store at that URL."""
    inbox = f"{store}/inbox/"
    if not uri.startswith(inbox):
        raise InvalidInputError(f"{uri!r} is refused: only files below {inbox} are read.")
    found = File(f"inbox/{uri.removeprefix(inbox)}")
    if any(part in ("", ".", "..") for part in found.path.split("/")) or not found.path.isprintable():
        raise InvalidInputError(f"{uri!r} is refused: its path has an empty part, dots or control characters.")
    if f"{found.folder}/".startswith((MESSAGES, RESULTS)):
        raise InvalidInputError(f"{uri!r} is refused: {MESSAGES} and {RESULTS} hold the answers to others.")
    return found
