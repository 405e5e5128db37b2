"""Convert tables in Parquet to JSON lines, once for each table, which are then answered as files of lines are.

    inbox/houses.parquet  ->  outbox/houses.parquet/rows-<hash of its e_tag>.jsonl

The lines remain in the store: a result refers to a row by its number.
"""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from functions.batch_worker.inbox_file import InboxFile
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.native import child_process
from pilotlight.runtime.environment_memory import DATA_LIMIT
from pilotlight.storage.object_store import ObjectStore

MAX_TABLE_BYTES = 200_000_000  # bytes of a table: it is converted within one invocation
MAX_LINES_BYTES = 2_000_000_000  # bytes of its rows as JSON
MAX_READ_SECONDS = 600.0  # where an invocation has no end, as on a laptop
READER_BYTES = 1_000_000_000  # of memory, for the process that reads it
# A table of a few kilobytes may hold millions of rows. What a reader may spend grows with what the sender has sent: a
# table of 420 kB with 2,000,000 numbers takes 0.35 s of processor time.
READ_CPU_SECONDS, READ_CPU_SECONDS_PER_MB = 0.5, 8.0
MIN_READ_SECONDS = 10.0  # s in which a reader of little processor time ends, however busy the machine is
READ_SECONDS_PER_CPU_SECOND = 10.0  # a store may be slow to take the rows
MB = 1_000_000


@dataclass(frozen=True)
class ConvertedTable(InboxFile):
    """The JSON lines of a table, or the reason why there are none; results are named after the table."""

    table: InboxFile
    unreadable_reason: str = ""

    @property
    def suffix(self) -> str:
        """Always that of JSON lines."""
        return ".jsonl"

    @property
    def model(self) -> str:
        """The table's model."""
        return self.table.model

    @property
    def folder(self) -> str:
        """The table's folder."""
        return self.table.folder

    @property
    def result_path(self) -> str:
        """The table's result."""
        return self.table.result_path


def convert_table(store: ObjectStore, table: InboxFile, deadline: float) -> ConvertedTable:
    """Convert a table in its present state, unless that was done; return why one cannot be read."""
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
    """Return whether the object exists."""
    try:
        store.get_size(path)
    except NotFoundError:
        return False
    return True


def read_table(store: ObjectStore, table: InboxFile, size: int, e_tag: str, deadline: float) -> Iterator[bytes]:
    """Read the rows of a table in that state, from a copy on disk, since Parquet needs random access."""
    if size > MAX_TABLE_BYTES:
        raise InvalidInputError(
            f"The table has {size:,} bytes; one may have {MAX_TABLE_BYTES:,}: send it in several files."
        )
    with TemporaryDirectory() as folder:
        file = Path(folder, "table.parquet")
        with file.open("wb") as target:
            target.writelines(store.iterate_blocks(table.path, 0, size, e_tag))
        yield from iterate_json_lines(file, deadline)


def iterate_json_lines(file: Path, deadline: float) -> Iterator[bytes]:
    """Yield the rows as `table_rows` writes them, many at a time, until `deadline` on time.monotonic's clock.

    They are read by a process of their own with a limit of memory, and one of processor time by the table's size.
    Raises `InvalidInputError` for what that refuses, if it dies, and when the time is over.
    """
    size = file.stat().st_size
    cpu_seconds = READ_CPU_SECONDS + READ_CPU_SECONDS_PER_MB * size / MB
    left = max(0.0, deadline - time.monotonic())
    written = 0
    try:
        for chunk in child_process.stream_module(
            "functions.batch_worker.table_rows",
            [str(file)],
            memory_bytes=min(READER_BYTES, DATA_LIMIT.count_free_bytes()),
            seconds=min(MAX_READ_SECONDS, MIN_READ_SECONDS + READ_SECONDS_PER_CPU_SECOND * cpu_seconds, left),
            cpu_seconds=cpu_seconds,
        ):
            written += len(chunk)
            if written > MAX_LINES_BYTES:
                raise InvalidInputError(
                    f"The table's rows have more than {MAX_LINES_BYTES:,} bytes as JSON; send it in several files."
                )
            yield chunk
    except child_process.OverdueError as exc:
        raise InvalidInputError(
            f"The table of {size:,} bytes takes longer to read than one invocation has for it ({exc}); send it in "
            "several files, or as CSV."
        ) from exc
    except child_process.ChildError as exc:
        raise InvalidInputError(f"{exc}.") from exc
