"""Tables of the inbox, laid out in lines once, so that they are answered as lines are: in parts, in spans, in order.

    inbox/houses.parquet  ->  outbox/houses.parquet/rows-<its e_tag's hash>.jsonl

They stay: the lines of a result tell the row by its number.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from functions.batch_worker import parquet
from functions.batch_worker.paths import File
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.storage.object_store import ObjectStore

LARGEST = 200_000_000  # bytes of a table: it is laid out within one invocation


@dataclass(frozen=True)
class Rows(File):
    """The rows of a table, by their path, or why it has none; results are named after the table."""

    table: File
    unreadable: str = ""

    @property
    def kind(self) -> str:
        """Always lines."""
        return ".jsonl"

    @property
    def model(self) -> str:
        """The table's."""
        return self.table.model

    @property
    def folder(self) -> str:
        """The table's."""
        return self.table.folder

    @property
    def result(self) -> str:
        """The table's."""
        return self.table.result


def laid_out(store: ObjectStore, table: File, ends: float) -> Rows:
    """The rows of a table as it is now, written if they are not there yet; a table that cannot be read says why."""
    size, e_tag = store.stamp(table.path)
    path = f"{table.folder}/rows-{hashlib.sha256(e_tag.encode()).hexdigest()[:16]}.jsonl"
    if is_there(store, path):
        return Rows(path, table)
    try:
        store.write(path, read(store, table, size, e_tag, ends))
    except InvalidInputError as exc:
        return Rows(table.path, table, str(exc))
    return Rows(path, table)


def is_there(store: ObjectStore, path: str) -> bool:
    """Whether there is an object."""
    try:
        store.size(path)
    except NotFoundError:
        return False
    return True


def read(store: ObjectStore, table: File, size: int, e_tag: str, ends: float) -> Iterator[bytes]:
    """The rows of that state of a table, which is read at random and so from a disk."""
    if size > LARGEST:
        raise InvalidInputError(f"The table has {size:,} bytes; one may have {LARGEST:,}: send it in several files.")
    with TemporaryDirectory() as folder:
        file = Path(folder, "table.parquet")
        with file.open("wb") as target:
            target.writelines(store.blocks(table.path, 0, size, e_tag))
        yield from parquet.lines(file, ends)
