"""Convert tables in Parquet to JSON lines, once for each table, which are then answered as files of lines are.

    inbox/houses.parquet  ->  outbox/houses.parquet/rows-<hash of its e_tag>.jsonl

The lines remain in the store: a result refers to a row by its number. This is the only module that imports arro3,
Arrow's reader in Rust: with 35 MB it fits beside onnxruntime, and pyarrow does not.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import msgspec

from functions.batch_worker.inbox_file import InboxFile
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.storage.object_store import ObjectStore

MAX_TABLE_BYTES = 200_000_000  # bytes of a table: it is converted within one invocation
BATCH_ROWS = 1_000  # at a time
ENCODER = msgspec.json.Encoder(decimal_format="number")
Found = TypeVar("Found")


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
    """Yield the rows in order, many at a time, until `deadline` on time.monotonic's clock.

    NaN, infinities and missing values are null; bytes are base64, dates and times ISO 8601. Raises `InvalidInputError`
    for a broken table, for values without a form in JSON, and when the time is over.
    """
    from arro3.io import read_parquet  # 20 ms to import, for which no other file waits

    batches = iter(call_reader(lambda: read_parquet(str(file), batch_size=BATCH_ROWS)))
    while (batch := call_reader(lambda: next(batches, None))) is not None:
        if time.monotonic() > deadline:
            raise InvalidInputError("The table takes longer to read than one invocation has; send it in several files.")
        yield encode_rows(batch)


def call_reader(step: Callable[[], Found]) -> Found:
    """Call the reader, and turn any of its errors into `InvalidInputError`."""
    try:
        return step()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:  # noqa: BLE001 - Rust's panics, for a broken footer, are no Exceptions
        raise InvalidInputError(f"The file is no Parquet, or a broken one: {exc}") from None


def encode_rows(batch: Any) -> bytes:  # noqa: ANN401 - arro3's own
    """Encode the rows of a batch, each as a line."""
    names = batch.column_names
    if len(set(names)) < len(names):
        raise InvalidInputError(f"The columns {names} name one twice.")
    columns = [call_reader(column.to_pylist) for column in batch.columns]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    try:
        return ENCODER.encode_lines(rows)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidInputError(f"A row cannot be told in JSON: {exc}.") from exc
