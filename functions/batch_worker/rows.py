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
from functions.batch_worker.paths import InboxFile
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.storage.object_store import ObjectStore

LARGEST = 200_000_000  # bytes of a table: it is laid out within one invocation


@dataclass(frozen=True)
class ConvertedTable(InboxFile):
    """The rows of a table, by their path, or why it has none; results are named after the table."""

    table: InboxFile
    unreadable_reason: str = ""

    @property
    def suffix(self) -> str:
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
    def result_path(self) -> str:
        """The table's."""
        return self.table.result_path


def convert_table(store: ObjectStore, table: InboxFile, deadline: float) -> ConvertedTable:
    """The rows of a table as it is now, written if they are not there yet; a table that cannot be read says why."""
    size, e_tag = store.get_size_and_e_tag(table.path)
    path = f"{table.folder}/rows-{hashlib.sha256(e_tag.encode()).hexdigest()[:16]}.jsonl"
    if has_object(store, path):
        return ConvertedTable(path, table)
    try:
        store.put_chunks(path, read_table(store, table, size, e_tag, deadline))
    except InvalidInputError as exc:
        return ConvertedTable(table.path, table, str(exc))
    return ConvertedTable(path, table)


def has_object(store: ObjectStore, path: str) -> bool:
    """Whether there is an object."""
    try:
        store.get_size(path)
    except NotFoundError:
        return False
    return True


def read_table(store: ObjectStore, table: InboxFile, size: int, e_tag: str, deadline: float) -> Iterator[bytes]:
    """The rows of that state of a table, which is read at random and so from a disk."""
    if size > LARGEST:
        raise InvalidInputError(f"The table has {size:,} bytes; one may have {LARGEST:,}: send it in several files.")
    with TemporaryDirectory() as folder:
        file = Path(folder, "table.parquet")
        with file.open("wb") as target:
            target.writelines(store.iterate_blocks(table.path, 0, size, e_tag))
        yield from parquet.iterate_json_lines(file, deadline)
