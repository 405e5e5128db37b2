"""Tables in files, CSV, Parquet and lines of JSON: as columns of numbers and of categories.

The only module that imports pyarrow. Rows are counted from 1, after the line of names.
"""

import codecs
import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from functions.train.data import Array
from functions.train.data.column_notes import PANDAS_INDEX, explain_texts, is_row_number
from functions.train.data.target import check_number_range, is_numeric_text
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import UserDataOptions

MIN_BLOCK, MAX_BLOCK = 2**20, 2**30  # bytes that pyarrow parses at once
GZIP_MARK = b"\x1f\x8b"
OTHER_FORMATS = {  # by the first bytes of a file
    b"PK\x03\x04": "an Excel workbook or a zip; save the sheet as CSV in UTF-8, or unpack it",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save the sheet as CSV in UTF-8",
    b"PAR1": "Parquet, which data.format: parquet reads",
    GZIP_MARK: "compressed by gzip; its name must end in .gz",
    b"(\xb5/\xfd": "compressed by zstd; decompress it, or compress it by gzip",
}
MAX_CATEGORIES = 100  # different texts at most in a column: with more, it is hardly one of categories


@dataclass(frozen=True)
class RowOrigins:
    """Which rows of a joined table come from which file."""

    file_names: tuple[str, ...]
    row_counts: tuple[int, ...]  # that each has
    kept_rows: Array | None = None  # which of them are left, if some are not

    def describe_row(self, row: int) -> str:
        """Describe where a row, counted from 0, comes from."""
        row = row if self.kept_rows is None else int(self.kept_rows[row])
        for name, count in zip(self.file_names, self.row_counts, strict=True):
            if row < count:
                return f"{name}, row {row + 1}"
            row -= count
        raise IndexError(row)


def read_csv(path: Path, file_name: str, options: UserDataOptions) -> Any:  # noqa: ANN401 - pyarrow ships no types
    """Read a CSV file whose first line has the names; a row of another width is refused, and nothing is skipped."""
    ragged: list[Any] = []

    def note(row: Any) -> str:  # noqa: ANN401
        ragged.append(row)
        return "skip"

    check_text_content(path, file_name)
    tabs = options.delimiter == "," and file_name.lower().endswith((".tsv", ".tsv.gz"))
    try:
        source, size = open_csv(path, file_name)
        table = pyarrow.csv.read_csv(
            source,
            # With threads, row numbers are lost. Types are inferred from one block, which is the whole file: a column
            # that begins with whole numbers or gaps is what its last rows are, and a cell may be of any length.
            pyarrow.csv.ReadOptions(use_threads=False, block_size=min(max(size, MIN_BLOCK) + 1, MAX_BLOCK)),
            pyarrow.csv.ParseOptions(
                delimiter="\t" if tabs else options.delimiter, newlines_in_values=True, invalid_row_handler=note
            ),
            pyarrow.csv.ConvertOptions(strings_can_be_null=True, decimal_point=options.decimal),
        )
        check_csv_encoding(table, file_name)
    except (pa.ArrowInvalid, OSError, EOFError, zlib.error) as exc:
        raise InvalidInputError(f"{file_name} cannot be read as CSV: {format_arrow_error(exc)}.") from exc
    if ragged:
        row = ragged[0]
        raise InvalidInputError(
            f"{file_name}, row {row.number - 1} has {row.actual_columns} values, and its header names "
            f"{row.expected_columns}: {row.text[:60]!r}{guess_delimiter(table.column_names)}."
        )
    return cut_empty_rows(table)


def cut_empty_rows(table: Any) -> Any:  # noqa: ANN401
    """Cut off the rows at the end that have no value at all, as spreadsheets leave them."""
    filled = [np.flatnonzero(pc.is_valid(column).to_numpy()) for column in table.columns]
    return table.slice(0, max((int(rows[-1]) + 1 for rows in filled if len(rows)), default=0))


def check_text_content(path: Path, file_name: str) -> None:
    """Refuse a file of another format, by its first bytes, that is called like one of text."""
    with path.open("rb") as file:
        start = file.read(8)
    meaning = next((said for mark, said in OTHER_FORMATS.items() if start.startswith(mark)), "")
    if meaning and not (start.startswith(GZIP_MARK) and file_name.lower().endswith(".gz")):
        raise InvalidInputError(f"{file_name} is no text: it is {meaning}.")


def open_csv(path: Path, file_name: str) -> tuple[Any, int]:
    """Open a CSV file for pyarrow, decompressed and in UTF-8; also return its size in bytes."""
    compressed = file_name.lower().endswith(".gz")
    with path.open("rb") as file:
        wide = not compressed and file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    if not compressed and not wide:
        return path, path.stat().st_size
    content = gzip.decompress(path.read_bytes()) if compressed else path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            content = content.decode("utf-16").encode()
        except UnicodeDecodeError as exc:
            raise InvalidInputError(f"{file_name} begins as UTF-16 and is none; save the file as UTF-8.") from exc
    return pa.BufferReader(content), len(content)


def check_csv_encoding(table: Any, file_name: str) -> None:  # noqa: ANN401
    """Refuse a CSV file in another encoding than UTF-8; pyarrow reads such a column as bytes."""
    try:
        kinds = zip(table.column_names, table.schema.types, strict=True)  # names are decoded only here
        odd = [f"column {column!r}" for column, kind in kinds if pa.types.is_binary(kind)]
    except UnicodeDecodeError:
        odd = ["its header"]
    if odd:
        raise InvalidInputError(f"{file_name}: {odd[0]} is not in UTF-8; save the file as UTF-8.")


def read_json_lines(path: Path, file_name: str, options: UserDataOptions) -> Any:  # noqa: ANN401
    """Read a file with an object in each line; what a line lacks is missing."""
    check_text_content(path, file_name)
    try:
        source, size = open_csv(path, file_name)
        table = pyarrow.json.read_json(
            source, pyarrow.json.ReadOptions(use_threads=False, block_size=min(max(size, MIN_BLOCK) + 1, MAX_BLOCK))
        )
        table.validate(full=True)
    except (pa.ArrowInvalid, OSError, EOFError, zlib.error) as exc:
        reason = re.sub(r"\bin row (\d+)$", lambda found: f"in line {int(found[1]) + 1}", format_arrow_error(exc))
        raise InvalidInputError(f"{file_name} cannot be read as lines of JSON, an object in each: {reason}.") from exc
    return table


def read_parquet(path: Path, file_name: str, options: UserDataOptions) -> Any:  # noqa: ANN401
    """Read a Parquet file."""
    try:
        return pyarrow.parquet.read_table(path, use_threads=False)
    except (pa.ArrowInvalid, OSError) as exc:
        raise InvalidInputError(f"{file_name} cannot be read as Parquet: {format_arrow_error(exc)}.") from exc


def read_parquet_values(path: Path) -> dict[str, list[Any]]:
    """Read a Parquet file to Python's values by column, decimals as floats."""
    try:
        table = pyarrow.parquet.read_table(path, use_threads=False)
    except (pa.ArrowInvalid, OSError) as exc:
        raise InvalidInputError(f"{path} cannot be read as Parquet: {format_arrow_error(exc)}.") from exc
    columns = {name: decode_dictionary_column(table.column(name)) for name in table.column_names}
    return {
        name: (column.cast(pa.float64()) if pa.types.is_decimal(column.type) else column).to_pylist()
        for name, column in columns.items()
    }


def format_arrow_error(exc: BaseException) -> str:
    """Format an error of pyarrow's without its full stop."""
    return str(exc).strip().split("\n", 1)[0].rstrip(".")


def join_tables(tables: Sequence[Any], file_names: Sequence[str]) -> tuple[Any, RowOrigins]:
    """Concatenate the tables; they must have the same columns, of compatible types."""
    expected = set(tables[0].column_names)
    for table, name in zip(tables, file_names, strict=True):
        check_table_columns(table, name)
        if odd := expected.symmetric_difference(table.column_names):
            raise InvalidInputError(
                f"{name} and {file_names[0]} do not have the same columns: {', '.join(sorted(odd))}."
            )
    try:
        whole = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as exc:
        raise build_mismatch_error(tables, file_names, exc) from exc
    return whole, RowOrigins(tuple(file_names), tuple(table.num_rows for table in tables))


def build_mismatch_error(tables: Sequence[Any], file_names: Sequence[str], cause: Exception) -> InvalidInputError:
    """Build the error for tables that have a column of types that do not go together."""
    for table, name in zip(tables[1:], file_names[1:], strict=True):
        for column in table.column_names:
            kinds = tables[0].schema.field(column).type, table.schema.field(column).type
            parts = [pa.schema([(column, kind)]) for kind in kinds]
            try:
                pa.unify_schemas(parts, promote_options="permissive")
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                return InvalidInputError(
                    f"Column {column!r} holds {kinds[0]} in {file_names[0]} and {kinds[1]} in {name}; write it alike "
                    "in all files."
                )
    return InvalidInputError(f"{file_names[0]} and the files after it do not go together: {format_arrow_error(cause)}.")


def check_table_columns(table: Any, file_name: str) -> None:  # noqa: ANN401
    """Refuse a table without rows, or with two columns of one name."""
    columns = table.column_names
    twice = [column for column in dict.fromkeys(columns) if columns.count(column) > 1]
    if twice:
        raise InvalidInputError(f"{file_name} has {columns.count(twice[0])} columns that are called {twice[0]!r}.")
    if not table.num_rows:
        raise InvalidInputError(f"{file_name} has no rows.")


def select_feature_columns(columns: Sequence[str], options: UserDataOptions, file_name: str) -> tuple[str, ...]:
    """Select the columns to learn from; every column that the recipe names must exist."""
    named = [("target", str(options.target)), *(("features", word) for word in options.features or ())]
    named += [(key, word) for key, word in (("group", options.group), ("time", options.time)) if word is not None]
    for key, word in [*named, *(("drop", word) for word in options.drop)]:
        if word not in columns:
            raise InvalidInputError(
                f"data.{key} is {word!r}; {file_name} has the columns {', '.join(columns)}{guess_delimiter(columns)}."
            )
    left_out = {str(options.target), *options.drop, *filter(None, (options.group, options.time))}
    kept = tuple(word for word in options.features or columns if word not in left_out)
    if not kept:
        raise InvalidInputError(f"{file_name} has no column left to learn from, besides {', '.join(sorted(left_out))}.")
    if "" in kept:
        number = columns.index("") + 1  # pandas writes its index so
        raise InvalidInputError(
            f"{file_name}: column {number} has no name; give it one, or leave it out by data.drop: ['']."
        )
    return kept


def guess_delimiter(columns: Sequence[str]) -> str:
    """Guess the delimiter of a CSV file that seems to have one column; return what to do about it, or nothing."""
    found = next((mark for mark in (";", "\t", "|") if len(columns) == 1 and mark in columns[0]), None)
    return f"; they look separated by {found!r}, which data.delimiter must say" if found else ""


def drop_row_numbers(table: Any, options: UserDataOptions, origin: RowOrigins) -> tuple[Any, tuple[str, ...]]:  # noqa: ANN401
    """Drop the index that pandas or R wrote as a column, unless the recipe names it; return its names too."""
    wanted = {options.target, options.group, options.time, *(options.features or ()), *options.drop}
    names = tuple(
        name
        for name in table.column_names
        if name not in wanted and is_index_column(name, table.column(name), origin.row_counts)
    )
    return table.drop_columns(list(names)) if names else table, names


def is_index_column(name: str, column: Any, row_counts: Sequence[int]) -> bool:  # noqa: ANN401
    """Return whether a column numbers the rows of each file, or is what a comma at the end of each line gives."""
    if (not name and column.null_count == len(column)) or PANDAS_INDEX.fullmatch(name):
        return True
    if not pa.types.is_integer(column.type) or column.null_count:
        return False
    parts = np.split(column.to_numpy(), np.cumsum(row_counts)[:-1])
    return all(is_row_number(name, part) for part in parts)


def find_labelled_rows(table: Any, name: str) -> Array:  # noqa: ANN401
    """Find the rows, ascending, that have a target."""
    return np.flatnonzero(find_present_values(decode_target_column(table, name)))


def find_present_values(column: Any) -> Array:  # noqa: ANN401
    """Find which values are there, bool (N,): neither null nor NaN."""
    present = pc.is_valid(column)
    if pa.types.is_floating(column.type):
        present = pc.and_(present, pc.invert(pc.fill_null(pc.is_nan(column), fill_value=False)))
    return np.asarray(present.to_numpy())


def read_group_column(table: Any, name: str, origin: RowOrigins) -> Array:  # noqa: ANN401
    """Read what keeps rows together, (N,), as text; a row without it is refused."""
    column = decode_dictionary_column(table.column(name))
    check_no_nulls(column, "group", name, origin)
    return np.array([str(value) for value in column.to_pylist()], np.str_)


def read_time_column(table: Any, name: str, origin: RowOrigins) -> tuple[Array, Array]:  # noqa: ANN401
    """Read times as sortable numbers (N,), and as they were written: dates, numbers, or texts in ISO 8601."""
    column = decode_dictionary_column(table.column(name))
    check_no_nulls(column, "time", name, origin)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp(column.type.unit))  # in UTC, whose name a machine may not know
    try:
        return convert_to_moments(column), np.array(column.cast(pa.string()).to_pylist(), np.str_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as exc:  # no time, or a type that arrow writes as no text
        raise InvalidInputError(
            f"{origin.file_names[0]}: data.time is {name!r}, which holds {column.type}, such as "
            f"{str(column[0])[:40]!r}; it must hold numbers, or dates as in 2026-11-29 or 2026-11-29T20:15:00."
        ) from exc


def convert_to_moments(column: Any) -> Array:  # noqa: ANN401
    """Convert times to numbers that sort as they do: whole ones as they are, since those of nanoseconds are large."""
    kind = column.type
    if is_numeric_type(kind):
        return np.asarray((column if pa.types.is_integer(kind) else column.cast(pa.float64(), safe=False)).to_numpy())
    if is_text_type(kind):
        column = parse_moments(column)
    elif pa.types.is_date(kind):
        column = column.cast(pa.timestamp("ms"))
    elif not (pa.types.is_timestamp(kind) or pa.types.is_time(kind) or pa.types.is_duration(kind)):
        raise pa.ArrowInvalid(f"{kind} is no time")
    width = pa.int32() if pa.types.is_time32(column.type) else pa.int64()
    return np.asarray(column.cast(width).cast(pa.int64()).to_numpy())


def parse_moments(column: Any) -> Any:  # noqa: ANN401
    """Parse texts in ISO 8601, all of them with an offset from UTC such as Z, or none."""
    try:
        return column.cast(pa.timestamp("us"))
    except pa.ArrowInvalid:
        return column.cast(pa.timestamp("us", "UTC"))


def check_no_nulls(column: Any, key: str, name: str, origin: RowOrigins) -> None:  # noqa: ANN401
    """Refuse a column with gaps that determines the sets."""
    missing = np.flatnonzero(~find_present_values(column))
    if len(missing):
        raise InvalidInputError(
            f"{origin.describe_row(int(missing[0]))}: {name!r}, which data.{key} names, is missing, as in "
            f"{len(missing):,} of {len(column):,} rows; drop these rows, or mend them."
        )


def decode_dictionary_column(column: Any) -> Any:  # noqa: ANN401
    """Decode a dictionary-encoded column to plain values."""
    column = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    return column.cast(pa.string()) if pa.types.is_string_view(column.type) else column  # few functions take views


def read_feature_column(table: Any, name: str, origin: RowOrigins) -> tuple[Array, tuple[str, ...]]:  # noqa: ANN401
    """Read a column as float64 (N,), NaN where it has no value, and its categories; (N,) are then their indices."""
    column = decode_dictionary_column(table.column(name))
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    if is_text_type(kind):
        return encode_category_column(trim_text(column), name, origin)
    if pa.types.is_temporal(kind):
        raise InvalidInputError(
            f"{origin.file_names[0]}: column {name!r} holds {kind}, neither numbers nor text; make numbers of it, such "
            "as the year or days since, split by it with data.time, or name it under data.drop."
        )
    if not (is_numeric_type(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise InvalidInputError(
            f"{origin.file_names[0]}: column {name!r} holds {kind}, neither numbers nor text; name it under data.drop."
        )
    values = column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64)
    check_number_range(values, f"column {name!r}", origin)
    return values, ()


def trim_text(column: Any) -> Any:  # noqa: ANN401
    """Trim the spaces around texts, as is done to those of a request: `1, red` and `1,red` hold the same category."""
    return pc.utf8_trim_whitespace(column.cast(pa.large_string()))


def is_text_type(arrow_type: Any) -> bool:  # noqa: ANN401
    """Return whether a type of pyarrow's is text."""
    types = pa.types
    return bool(types.is_string(arrow_type) or types.is_large_string(arrow_type) or types.is_string_view(arrow_type))


def is_numeric_type(arrow_type: Any) -> bool:  # noqa: ANN401
    """Return whether a type of pyarrow's is numeric."""
    return bool(pa.types.is_integer(arrow_type) or pa.types.is_floating(arrow_type) or pa.types.is_decimal(arrow_type))


def encode_category_column(column: Any, name: str, origin: RowOrigins) -> tuple[Array, tuple[str, ...]]:  # noqa: ANN401
    """Encode a column of text as indices into its sorted distinct texts."""
    words = sorted(word for word in pc.unique(column).to_pylist() if word is not None)
    odd = [word for word in words if not is_numeric_text(word)]
    if odd and len(odd) * 2 < len(words):
        said = f"{origin.describe_row(pc.index(column, odd[0]).as_py())}: column {name!r} says {odd[0]!r}"
        raise InvalidInputError(f"{said}, where others say numbers; mend it, or leave it empty.")
    if len(words) > MAX_CATEGORIES:
        found = explain_texts(words)
        means = f"; they are {found}" if found else ""
        raise InvalidInputError(
            f"{origin.file_names[0]}: column {name!r} holds {len(words)} different texts, such as {words[0][:40]!r}; "
            f"with more than {MAX_CATEGORIES} it is no category: name it under data.drop{means}."
        )
    codes = pc.index_in(column, pa.array(words, column.type)).cast(pa.float64())
    return codes.to_numpy().astype(np.float64), tuple(words)


def decode_target_column(table: Any, name: str) -> Any:  # noqa: ANN401
    """Decode the target column to plain values; a text without anything but spaces is missing."""
    column = decode_dictionary_column(table.column(name))
    if not is_text_type(column.type):
        return column
    trimmed = trim_text(column)
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, trimmed.type), trimmed)


def read_target_column(table: Any, name: str, origin: RowOrigins) -> Array:  # noqa: ANN401
    """Read the target column as it is: text, truth values, whole or other numbers (N,), with a value in every row."""
    column = decode_target_column(table, name)
    kind = column.type
    missing = np.flatnonzero(~find_present_values(column))
    if len(missing):
        raise InvalidInputError(
            f"{origin.describe_row(int(missing[0]))}: the target {name!r} is missing, as in {len(missing):,} of "
            f"{len(column):,} rows; mend them, or let data.unlabelled: drop leave them out."
        )
    if is_text_type(kind):
        return np.array(column.to_pylist(), dtype=np.str_)
    if pa.types.is_temporal(kind):
        raise InvalidInputError(
            f"{origin.file_names[0]}: the target {name!r} holds {kind}; make a number or classes of it, such "
            "as days since."
        )
    if not (is_numeric_type(kind) or pa.types.is_boolean(kind)):
        raise InvalidInputError(f"{origin.file_names[0]}: the target {name!r} holds {kind}, neither numbers nor text.")
    return np.asarray((column.cast(pa.float64()) if pa.types.is_decimal(kind) else column).to_numpy())
