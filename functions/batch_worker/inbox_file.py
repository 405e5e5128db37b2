"""Map files of the inbox to the paths of their results.

    inbox/<name>.jsonl     ->  outbox/<name>.jsonl        answers, a line for each
                               outbox/<name>/progress.json, parts/..., manifest.json (last)
    inbox/<name>.csv       ->  outbox/<name>.csv.jsonl, outbox/<name>.csv/...
    inbox/<name>.parquet   ->  outbox/<name>.parquet.jsonl, outbox/<name>.parquet/...
    inbox/<name>               ->  outbox/<name>.results.jsonl, outbox/<name>.results/...   any other, see `folder`
    inbox/<model>/...          the model that answers: digits, digits:3, digits@candidate

No two files share a folder or a result. The inbox has no tenants: who may write there is a role, and the outbox is for
whoever may read it.

A file may also be the input of a batch that was created over HTTP; then it is one of the uploads, and its results go to
the batch's folder, which is its tenant's. The only thing that this module reads is whether a batch is cancelled.
"""

import re
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
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
EXAMPLE_SUFFIXES = (*IMAGE_SUFFIXES, *AUDIO_SUFFIXES)  # of files that are one example
TABLE_SUFFIX = ".parquet"
SUFFIXES = (*LINE_SUFFIXES, ".json", ".csv", TABLE_SUFFIX, *EXAMPLE_SUFFIXES)
MESSAGES_FOLDER = "outbox/messages/"  # of answers to messages
INBOX_FORMAT = InboxFormat()
OWN_FOLDER_SUFFIX = ".results"  # of a folder that is named by a file's whole name
# Objects in a folder that the inbox could name too: the parts of a result, the lines of a converted table.
INNER_OBJECT = re.compile(r".*/parts/[0-9]{15}-[0-9]{15}(\.errors)?|.*\.(?i:parquet)/rows-[0-9a-f]{16}", re.DOTALL)


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
        """The folder of its parts, progress and manifest, which no other file has."""
        inner = self.path.removeprefix("inbox/")
        return f"outbox/{name_results(inner)}"

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
    def tenant(self) -> str:
        """Whose requests are in it; the inbox has no tenants."""
        return ""

    @property
    def expected_e_tag(self) -> str:
        """The e_tag of the only state in which it may be read; empty for any state."""
        return ""

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
        path = content_path(batch_request.input_file_id, batch_request.tenant, batch_request.input_content)
        return cls(path, batch_request)

    @property
    def tenant(self) -> str:
        """The tenant whose batch it is."""
        return self.batch_request.tenant

    @property
    def expected_e_tag(self) -> str:
        """The e_tag of the file when the batch was requested."""
        return self.batch_request.input_e_tag

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
            store.get_size(batch_document_path(self.batch_request.id, "cancel", self.tenant))
        except NotFoundError:
            return ""
        return "cancelled"


def name_results(name: str) -> str:
    """Return the name of a file's results for its path in the inbox; two files never have the same.

    A file of lines is known by its name without `.jsonl`, any other that is read by its name. Where another file could
    have that name, or an object within it, the results have the whole name and `.results`.
    """
    suffix, stem = PurePosixPath(name).suffix.lower(), name.removesuffix(".jsonl")
    if stem == name:
        return name if suffix in SUFFIXES else f"{name}{OWN_FOLDER_SUFFIX}"
    is_taken = stem.lower().endswith(("/", *SUFFIXES, OWN_FOLDER_SUFFIX)) or INNER_OBJECT.fullmatch(stem)
    return f"{name}{OWN_FOLDER_SUFFIX}" if is_taken or not stem else stem


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
