"""A table in Parquet as lines: a JSON object for each row, which everything else here reads.

The only module that imports arro3, Arrow's reader in Rust: with 35 MB it fits beside onnxruntime, and pyarrow does not.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pilotlight.errors import InvalidInputError

BATCH_ROWS = 1_000  # at a time
ENCODER = msgspec.json.Encoder(decimal_format="number")
Found = TypeVar("Found")


def iterate_json_lines(file: Path, deadline: float) -> Iterator[bytes]:
    """The rows in order, many at a time, until `deadline` on time.monotonic's clock.

    Numbers that are none, and missing values, are null; bytes are base64, dates and times ISO 8601. `InvalidInputError`
    for what is no such table, what JSON has no form for, and when the time is over.
    """
    from arro3.io import read_parquet  # 20 ms to import, for which no other file waits

    batches = iter(call_reader(lambda: read_parquet(str(file), batch_size=BATCH_ROWS)))
    while (batch := call_reader(lambda: next(batches, None))) is not None:
        if time.monotonic() > deadline:
            raise InvalidInputError("The table takes longer to read than one invocation has; send it in several files.")
        yield encode_rows(batch)


def call_reader(step: Callable[[], Found]) -> Found:
    """What the reader gives, or its complaint in a sentence."""
    try:
        return step()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:  # noqa: BLE001 - Rust's panics, for a broken footer, are no Exceptions
        raise InvalidInputError(f"The file is no Parquet, or a broken one: {exc}") from None


def encode_rows(batch: Any) -> bytes:  # noqa: ANN401 - arro3's own
    """The rows of a batch, each a line."""
    names = batch.column_names
    if len(set(names)) < len(names):
        raise InvalidInputError(f"The columns {names} name one twice.")
    columns = [call_reader(column.to_pylist) for column in batch.columns]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    try:
        return ENCODER.encode_lines(rows)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidInputError(f"A row cannot be told in JSON: {exc}.") from exc
