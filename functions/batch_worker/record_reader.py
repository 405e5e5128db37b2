"""Read the items of a file of any length one after the other, from any line on.

Each item ends at a byte of the file after which reading can continue; this module knows neither models nor stores.
"""

import csv
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from msgspec import Struct

from functions.batch_worker.inputs import BYTE_ORDER_MARK, CsvRow, InferenceInput, JsonInput
from pilotlight.api import csv_table
from pilotlight.errors import InvalidInputError

MAX_LINE_BYTES = 6_000_000  # bytes of a line, as of a request
SAMPLE_ROWS = 20  # of a table, which tell whether its rows have names


class FileLine(Struct, frozen=True):
    """A line without its end; None if it is longer than `MAX_LINE_BYTES`."""

    number: int  # from 1
    end: int  # bytes of the file up to and with its newline
    data: bytes | None


class TableHeader(NamedTuple):
    """What the first lines of a CSV file say of its rows."""

    names: list[str]
    extra_cell: int | None = None  # the place of one that the rows have beside these, such as R's row name


class InputItem(Struct, frozen=True):
    """One request of a file, or the reason why it cannot be read."""

    number: int  # of the line that it ends at
    end: int
    body: InferenceInput | InvalidInputError


def split_lines(chunks: Iterable[bytes], position: int = 0, number: int = 0) -> Iterator[FileLine]:
    """Yield the lines of a file's bytes from `position` on, which is `number` lines after its beginning."""
    rest, dropped = b"", 0
    for chunk in chunks:
        *whole, last = (rest + chunk).split(b"\n")
        for data in whole:
            position, number = position + dropped + len(data) + 1, number + 1
            yield FileLine(
                number,
                position,
                None
                if dropped or len(data) > MAX_LINE_BYTES
                else data.removeprefix(BYTE_ORDER_MARK),  # of a file that was joined to others
            )
            dropped = 0
        rest = last
        if len(rest) > MAX_LINE_BYTES:
            rest, dropped = b"", dropped + len(rest)
    if rest or dropped:
        yield FileLine(
            number + 1, position + dropped + len(rest), None if dropped else rest.removeprefix(BYTE_ORDER_MARK)
        )


def parse_json_lines(
    file_lines: Iterable[FileLine], parse: Callable[[bytes], InferenceInput] = JsonInput.parse
) -> Iterator[InputItem]:
    """Parse JSON lines; skip blank ones."""
    for line in file_lines:
        if line.data is None or line.data.strip():
            yield InputItem(line.number, line.end, parse_input(line.data, parse))


def parse_input(
    data: bytes | None, parse: Callable[[bytes], InferenceInput] = JsonInput.parse
) -> InferenceInput | InvalidInputError:
    """Parse one body, or return its error."""
    if data is None:
        return InvalidInputError(f"The line is longer than {MAX_LINE_BYTES:,} bytes; send fewer items in each.")
    try:
        return parse(data)
    except InvalidInputError as exc:
        return exc


class LineCsvReader:
    """Feeds lines as text to python's csv, which takes as many as a row has; keeps the last one.

    A row has as many bytes as a line: a quote that is never closed would take the rest of the file.
    """

    def __init__(self, file_lines: Iterator[FileLine]) -> None:
        self._file_lines = file_lines
        self._row_bytes = 0
        self.last_line = FileLine(0, 0, b"")

    def begin_row(self) -> None:
        """Count the bytes of the next row."""
        self._row_bytes = 0

    def __iter__(self) -> "LineCsvReader":
        return self

    def __next__(self) -> str:
        self.last_line = next(self._file_lines)
        if self.last_line.data is None:
            raise InvalidInputError(f"The line is longer than {MAX_LINE_BYTES:,} bytes.")
        self._row_bytes += len(self.last_line.data) + 1
        if self._row_bytes > MAX_LINE_BYTES + 1:
            raise InvalidInputError(f"The row is longer than {MAX_LINE_BYTES:,} bytes; is a quote not closed?")
        try:
            return self.last_line.data.decode() + "\n"
        except UnicodeDecodeError as exc:
            raise InvalidInputError(f"The line is not utf-8: {exc}.") from exc


def read_header(file_lines: Iterator[FileLine]) -> TableHeader:
    """Read the column names in the first row; raise `InvalidInputError` if there is none, or a name occurs twice."""
    rows = (cells for _, cells in split_csv_rows(file_lines))
    names = next(rows, None)
    if names is None:
        raise InvalidInputError("The CSV is empty; its first line names the columns.")
    if isinstance(names, InvalidInputError):
        raise names
    csv_table.check_separator(names)
    if len(set(names)) < len(names):
        raise InvalidInputError(f"The columns {names} name one twice.")
    sample = [[] if isinstance(cells, InvalidInputError) else cells for cells in islice(rows, SAMPLE_ROWS)]
    return TableHeader(names, csv_table.find_extra_cell(names, sample))


def parse_csv_rows(header: TableHeader, file_lines: Iterator[FileLine]) -> Iterator[InputItem]:
    """Parse the rows of a table with these columns; the header precedes them or is among the first lines."""
    names, extra = header
    for line, cells in split_csv_rows(file_lines):
        if isinstance(cells, InvalidInputError):
            yield InputItem(line.number, line.end, cells)
            continue
        if extra is not None and len(cells) == len(names) + 1:
            cells = csv_table.drop_extra_cell(cells, extra)
        if len(cells) == len(names):
            yield InputItem(line.number, line.end, CsvRow(dict(zip(names, cells, strict=True))))
        else:
            error = InvalidInputError(f"The row has {len(cells)} values, but there are {len(names)} columns.")
            yield InputItem(line.number, line.end, error)


def split_csv_rows(file_lines: Iterator[FileLine]) -> Iterator[tuple[FileLine, list[str] | InvalidInputError]]:
    """Yield the rows that are not blank, each with the line at which it ends; `sep=,` before them is none."""
    csv_table.lift_cell_limit()
    line_reader = LineCsvReader(file_lines)
    reader = csv.reader(line_reader, strict=True)
    while True:
        line_reader.begin_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except InvalidInputError as exc:
            yield line_reader.last_line, exc
        except csv.Error as exc:
            yield line_reader.last_line, InvalidInputError(f"The row is not CSV: {describe_csv_error(exc)}.")
        else:
            is_first = line_reader.last_line.number == 1
            if not csv_table.is_blank(cells) and not (is_first and csv_table.is_separator_line(cells)):
                yield line_reader.last_line, cells


def describe_csv_error(error: csv.Error) -> str:
    """Describe what is wrong with a row, for the end of a sentence; python's word for one thing is of no use."""
    if "new-line character" in str(error):
        return "it has a carriage return without a line feed outside quotes; end lines in LF or CRLF"
    return str(error)
