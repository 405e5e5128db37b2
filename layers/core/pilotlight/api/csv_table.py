"""Parse CSV as Excel, R and pandas write it: a header, then a row for each record.

Python's csv refuses cells of more than 131,072 characters; here a body's own limit is the only one.
"""

import csv
import io
from collections.abc import Sequence

from pilotlight.errors import InvalidInputError

MAX_CELL = 2**31 - 1  # characters of a cell, which python counts in a C long: a body is never so large
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def lift_cell_limit() -> None:
    """Let cells have any length in this process; whoever reads CSV limits the bytes."""
    csv.field_size_limit(MAX_CELL)


def parse_table(body: bytes) -> tuple[list[str], list[list[str]]]:
    """Parse a table to the names of its columns and its rows, without row names where their column has no head."""
    lift_cell_limit()
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as exc:
        raise InvalidInputError(f"The body is not CSV in utf-8: {exc}.") from exc
    if not lines:
        raise InvalidInputError("The CSV is empty; its first line names the columns.")
    names, rows = lines[0], [row for row in lines[1:] if not is_blank(row)]
    check_separator(names)
    if rows and all(len(row) == len(names) + 1 for row in rows):  # row names of R, or a comma at the end of each line
        has_names = any(row[-1] for row in rows)
        rows = [row[1:] if has_names else row[:-1] for row in rows]
    return names, rows


def is_blank(row: Sequence[str]) -> bool:
    """Return whether a line has no record: nothing, or blanks alone, as at the end of some files."""
    return not row or (len(row) == 1 and row[0] != "" and not row[0].strip())


def check_separator(names: Sequence[str]) -> None:
    """Refuse a header of one name with several in it, as Excel and R's write.csv2 write them in some countries."""
    for separator, what in OTHER_SEPARATORS.items():
        if len(names) == 1 and separator in names[0]:
            raise InvalidInputError(
                f"The first line is one column, {names[0][:80]!r}, with {what} in it: separate columns by commas, and "
                "write 1.5 for 1,5."
            )
