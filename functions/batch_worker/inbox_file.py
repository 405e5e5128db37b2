"""Map files of the inbox to the paths of their results.

    inbox/<name>.jsonl     ->  outbox/<name>.jsonl        answers, a line for each
                               outbox/<name>/progress.json, parts/..., manifest.json (last)
    inbox/<name>.csv       ->  outbox/<name>.csv.jsonl, outbox/<name>.csv/...
    inbox/<name>.parquet   ->  outbox/<name>.parquet.jsonl, outbox/<name>.parquet/...
    inbox/<model>/...          the model that answers: digits, digits:3, digits@candidate

A file may also be the input of a batch that was created over HTTP; then it is one of the uploads, and its results go to
the batch's folder. The only thing that this module reads is whether a batch is cancelled.
"""

import time
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from functions.batch_worker.line_formats import InboxFormat, LineFormat, OpenAIBatchFormat
from pilotlight.contracts.batch import RESULTS_FOLDER, BatchRequest, batch_document_path
from pilotlight.contracts.upload import content_path
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.storage.object_store import ObjectStore

LINE_SUFFIXES = (".jsonl", ".ndjson")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
TABLE_SUFFIX = ".parquet"
SUFFIXES = (*LINE_SUFFIXES, ".json", ".csv", TABLE_SUFFIX, *IMAGE_SUFFIXES)
MESSAGES_FOLDER = "outbox/messages/"  # of answers to messages
INBOX_FORMAT = InboxFormat()


@dataclass(frozen=True)
class InboxFile:
    """One file of the inbox, by its path in the store."""

    path: str

    @property
    def suffix(self) -> str:
        """Its suffix, which decides how it is read."""
        return PurePosixPath(self.path).suffix.lower()

    @property
    def model(self) -> str:
        """The folder in the inbox, which may name a model; empty for a file directly in the inbox."""
        folders = self.path.split("/")[1:-1]
        return folders[0] if folders else ""

    @property
    def folder(self) -> str:
        """The folder of its parts, progress and manifest."""
        inner = self.path.removeprefix("inbox/")
        return f"outbox/{inner.removesuffix('.jsonl')}"

    @property
    def result_path(self) -> str:
        """The path of its result."""
        return f"{self.folder}.jsonl"

    @property
    def errors_path(self) -> str:
        """The path of lines without an answer; empty if they are among the answers."""
        return ""

    @property
    def line_format(self) -> LineFormat:
        """How its lines are read and answered."""
        return INBOX_FORMAT

    @property
    def unreadable_reason(self) -> str:
        """Why it cannot be read, if that is known already."""
        return ""

    def get_stop_reason(self, store: ObjectStore) -> Literal["", "cancelled", "expired"]:
        """Return why work on it must stop; files of the inbox are answered to their end."""
        return ""


@dataclass(frozen=True)
class BatchInput(InboxFile):
    """The input of a batch."""

    batch_request: BatchRequest

    @classmethod
    def from_batch_request(cls, batch_request: BatchRequest) -> "BatchInput":
        """Return the input file that a batch names."""
        return cls(content_path(batch_request.input_file_id), batch_request)

    @property
    def suffix(self) -> str:
        """Always that of JSON lines."""
        return ".jsonl"

    @property
    def model(self) -> str:
        """None: the endpoint names it."""
        return ""

    @property
    def folder(self) -> str:
        """The batch's own folder."""
        return self.batch_request.results_folder

    @property
    def result_path(self) -> str:
        """The path of the output file."""
        return f"{self.folder}/output.jsonl"

    @property
    def errors_path(self) -> str:
        """The path of the error file."""
        return f"{self.folder}/errors.jsonl"

    @property
    def line_format(self) -> LineFormat:
        """Requests with ids."""
        return OpenAIBatchFormat(self.batch_request.id, self.batch_request.endpoint)

    def get_stop_reason(self, store: ObjectStore) -> Literal["", "cancelled", "expired"]:
        """Return why the batch must stop, cancelled or expired; empty if it may continue."""
        if time.time() > self.batch_request.expires_at:
            return "expired"
        try:
            store.get_size(batch_document_path(self.batch_request.id, "cancel"))
        except NotFoundError:
            return ""
        return "cancelled"


def parse_inbox_uri(store_url: str, uri: str) -> InboxFile:
    """Parse a URI into a file of the store's inbox; raise `InvalidInputError` for one that is not in it."""
    inbox = f"{store_url}/inbox/"
    if not uri.startswith(inbox):
        raise InvalidInputError(f"{uri!r} is refused: only files below {inbox} are read.")
    inbox_file = InboxFile(f"inbox/{uri.removeprefix(inbox)}")
    if any(part in ("", ".", "..") for part in inbox_file.path.split("/")) or not inbox_file.path.isprintable():
        raise InvalidInputError(f"{uri!r} is refused: its path has an empty part, dots or control characters.")
    if f"{inbox_file.folder}/".startswith((MESSAGES_FOLDER, RESULTS_FOLDER)):
        raise InvalidInputError(
            f"{uri!r} is refused: {MESSAGES_FOLDER} and {RESULTS_FOLDER} hold the answers to others."
        )
    return inbox_file
