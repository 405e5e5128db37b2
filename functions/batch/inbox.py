"""Which addresses are files of the inbox, and what each one's results are called.

    inbox/<name>.jsonl     ->  outbox/<name>.jsonl        answers, a line for each
                               outbox/<name>/progress.json, parts/..., manifest.json (last)
    inbox/<name>.csv       ->  outbox/<name>.csv.jsonl, outbox/<name>.csv/...
    inbox/<model>/...          the model that answers: digits, digits:3, digits@candidate

It knows names; nothing here reads.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

from pilotlight.errors import InvalidInputError

LINES = (".jsonl", ".ndjson")
IMAGES = (".png", ".jpg", ".jpeg")
KINDS = (*LINES, ".json", ".csv", *IMAGES)
MESSAGES = "outbox/messages/"  # where answers to messages lie


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


def file(store: str, uri: str) -> File:
    """The file at an address; `InvalidInputError` for one that is not in the inbox of the store at that URL."""
    inbox = f"{store}/inbox/"
    if not uri.startswith(inbox):
        raise InvalidInputError(f"{uri!r} is refused: only files below {inbox} are read.")
    found = File(f"inbox/{uri.removeprefix(inbox)}")
    if any(part in ("", ".", "..") for part in found.path.split("/")) or not found.path.isprintable():
        raise InvalidInputError(f"{uri!r} is refused: its path has an empty part, dots or control characters.")
    if f"{found.folder}/".startswith(MESSAGES):
        raise InvalidInputError(f"{uri!r} is refused: {MESSAGES} holds the answers to messages.")
    return found
