"""Read the rows of a Parquet file as JSON lines: `python -m functions.batch_worker.table_rows FILE` writes them.

The only module that imports arro3, Arrow's reader in Rust: with 35 MB it fits beside onnxruntime, and pyarrow does not.
A page of a few bytes may unfold to GBs, for which Rust aborts the process: so `parquet` runs it in one with a limit.
"""

import re
import sys
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import msgspec
from arro3.io import read_parquet

from pilotlight.errors import InvalidInputError, PilotlightError
from pilotlight.native.calls import NativeCalls

BATCH_ROWS = 1_000  # at a time
MAX_ROWS = 10_000_000  # of a table; a file of 1 kB may declare more than anybody would pay for
MAX_COLUMNS = 5_000  # of a table; the reader takes about 100 kB of memory for each
PANDAS_INDEX = re.compile(r"__index_level_[0-9]+__")  # of an index without a name
ENCODER = msgspec.json.Encoder(decimal_format="number")


def build_reading_error(cause: str) -> InvalidInputError:
    """Build the error of a table that cannot be read."""
    return InvalidInputError(f"The file is no Parquet, or a broken one: {cause}.")


READING = NativeCalls("arro3", build_reading_error, (Exception,))  # it raises what it likes on broken files


def iterate_rows(file: Path) -> Iterator[bytes]:
    """Yield the rows in order, many at a time.

    NaN and missing values are null, infinities texts, which no model takes for a number; bytes are base64, dates and
    times ISO 8601. The index that pandas writes is no column. Raises `InvalidInputError` for a broken table, for one of
    too many rows, and for values without a form in JSON.
    """
    with READING:
        reader = read_parquet(str(file), batch_size=BATCH_ROWS)
        width, batches = len(reader.schema), iter(reader)
    if width > MAX_COLUMNS:
        raise InvalidInputError(
            f"The table has {width:,} columns, and one may have {MAX_COLUMNS:,}; put numbers of one kind into a column "
            "of lists."
        )
    count = 0
    while (batch := read_next(batches)) is not None:
        names, columns = batch
        count += len(columns[0]) if columns else 0
        if count > MAX_ROWS:
            raise InvalidInputError(f"The table has more than {MAX_ROWS:,} rows; send it in several files.")
        yield encode_rows(names, columns)


@READING
def read_next(batches: Iterator[Any]) -> tuple[list[str], list[list[Any]]] | None:
    """Read the next rows: the names of the columns, and the values of each; None at the end."""
    batch = next(batches, None)
    return None if batch is None else (batch.column_names, [column.to_pylist() for column in batch.columns])


def encode_rows(names: list[str], columns: list[list[Any]]) -> bytes:
    """Encode rows, each as a line."""
    if len(set(names)) < len(names):
        raise InvalidInputError(f"The columns {names} name one twice.")
    kept = [place for place, name in enumerate(names) if not PANDAS_INDEX.fullmatch(name)]
    names, columns = [names[place] for place in kept], [spell_infinities(columns[place]) for place in kept]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    try:
        return ENCODER.encode_lines(rows)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidInputError(f"A row cannot be told in JSON: {exc}.") from exc


def spell_infinities(values: list[Any]) -> list[Any]:
    """Return values, nested or flat, with infinities as texts; JSON would have null for them, a missing value."""
    if inf in values or -inf in values:
        return [("Infinity" if value == inf else "-Infinity") if value in (inf, -inf) else value for value in values]
    if any(isinstance(value, list) for value in values):
        return [spell_infinities(value) if isinstance(value, list) else value for value in values]
    return values


def main() -> None:
    """Write the rows of the file to standard output; end with the reason on standard error."""
    try:
        for lines in iterate_rows(Path(sys.argv[1])):
            sys.stdout.buffer.write(lines)
    except PilotlightError as exc:
        sys.exit(" ".join(str(exc).split()))
    except MemoryError:
        sys.exit("The file is no Parquet, or a broken one: its rows take more memory than there is.")


if __name__ == "__main__":
    main()
