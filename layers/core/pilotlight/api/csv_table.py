"""Parse CSV as Excel, R and pandas write it: a header, then a row for each record.

Python's csv refuses cells of more than 131,072 characters; here a body's own limit is the only one.
"""

import csv
import io
import re
from collections.abc import Sequence

from pilotlight.errors import InvalidInputError

MAX_CELL = 2**31 - 1  # characters of a cell, which python counts in a C long: a body is never so large
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
# A line that Excel reads, and some tools write before the names.
SEPARATOR_LINE = re.compile(r'\s*"?sep=.?"?\s*', re.IGNORECASE)


def lift_cell_limit() -> None:
    """Let cells have any length in this process; whoever reads CSV limits the bytes."""
    csv.field_size_limit(MAX_CELL)


def parse_table(body: bytes) -> tuple[list[str], list[list[str]]]:
    """Parse a table to the names of its columns and its rows, without row names where their column has no head."""
    lift_cell_limit()
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as exc:
        check_separator([body.partition(b"\n")[0].decode(errors="replace").strip()])
        raise InvalidInputError(f"The body is not CSV in utf-8: {exc}.") from exc
    lines = [row for row in lines if not is_blank(row)]
    lines = lines[1:] if lines and is_separator_line(lines[0]) else lines
    if not lines:
        raise InvalidInputError("The CSV is empty; its first line names the columns.")
    names, rows = lines[0], lines[1:]
    check_separator(names)
    extra = find_extra_cell(names, rows)
    return names, rows if extra is None else [drop_extra_cell(row, extra) for row in rows]


def find_extra_cell(names: Sequence[str], rows: Sequence[Sequence[str]]) -> int | None:
    """Find the place of a cell that each row has and the header has not: R's row name, or behind a comma at the end."""
    if not rows or any(len(row) != len(names) + 1 for row in rows):
        return None
    return 0 if any(row[-1] for row in rows) else -1


def drop_extra_cell(row: Sequence[str], place: int) -> list[str]:
    """Return a row without the cell at the first or the last place."""
    return list(row[1:] if place == 0 else row[:-1])


def is_separator_line(row: Sequence[str]) -> bool:
    """Return whether a row is `sep=,`, which says how cells are separated, and is none of the table."""
    return SEPARATOR_LINE.fullmatch(",".join(row)) is not None


def is_blank(row: Sequence[str]) -> bool:
    """Return whether a line has no record: nothing, or blanks alone, as at the end of some files."""
    return not row or (len(row) == 1 and row[0] != "" and not row[0].strip())


def check_separator(names: Sequence[str]) -> None:
    """Refuse a header of one name with several in it, as Excel and R's write.csv2 write them in some countries.

    So is one with null characters, which UTF-16 has if nothing says that it is that.
    """
    if any("\0" in name for name in names):
        raise InvalidInputError(
            "The first line has null characters, as UTF-16 without a byte order mark has: send UTF-8, or say "
            "Content-Type: text/csv; charset=utf-16le."
        )
    for separator, what in OTHER_SEPARATORS.items():
        if len(names) == 1 and separator in names[0]:
            raise InvalidInputError(
                f"The first line is one column, {names[0][:80]!r}, with {what} in it: separate columns by commas, and "
                "write 1.5 for 1,5."
            )
