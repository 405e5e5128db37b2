"""Read an input file: check whether it can be answered, split it into byte ranges, iterate over the items of a range.

It reads one object in the state in which it was first seen (If-Match), and knows neither models nor results.
"""

import codecs
from collections.abc import Iterable, Iterator, Sequence

from functions.batch_worker import record_reader
from functions.batch_worker.inbox_file import EXAMPLE_SUFFIXES, LINE_SUFFIXES, SUFFIXES, TABLE_SUFFIX, InboxFile
from functions.batch_worker.inputs import ExampleFile
from functions.batch_worker.record_reader import InputItem, TableHeader
from pilotlight.contracts.batch import ByteRange, LineError
from pilotlight.errors import InvalidInputError, NotFoundError, shorten_message
from pilotlight.storage.download import hash_chunks
from pilotlight.storage.object_store import ObjectStore

MAX_FILE_BYTES = 50_000_000  # bytes of a file that is not read in lines
MAX_BATCH_BYTES = 1_000_000_000  # bytes: all of it is examined within one invocation

HEAD_BYTES = 4  # of a file, which tell what it is if it is no UTF-8
OTHER_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32", "save it as UTF-8"),
    (codecs.BOM_UTF32_BE, "UTF-32", "save it as UTF-8"),
    (codecs.BOM_UTF16_LE, "UTF-16", "save it as UTF-8"),
    (codecs.BOM_UTF16_BE, "UTF-16", "save it as UTF-8"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it"),
    (b"PK\x03\x04", "a zip archive, as a workbook of Excel is", "save it as CSV UTF-8"),
    (b"PAR1", "a Parquet table", "call it .parquet"),
)


class InputFile:
    """One file of a store."""

    def __init__(self, store: ObjectStore, inbox_file: InboxFile) -> None:
        self._store = store
        self._inbox_file = inbox_file
        self.size, self.e_tag = store.get_size_and_e_tag(inbox_file.path)
        if inbox_file.expected_e_tag not in ("", self.e_tag):
            raise NotFoundError(f"{inbox_file.path} is not the file any more that it was when its batch was requested.")
        self._is_line_based = inbox_file.suffix in (*LINE_SUFFIXES, ".csv")

    def validate(self) -> tuple[str, Sequence[LineError], int]:
        """Return why the whole file is refused, as a sentence and line by line, and how many requests it holds."""
        try:
            self._check_readable()
        except InvalidInputError as exc:
            return shorten_message(str(exc)), (), 0
        line_format = self._inbox_file.line_format
        total, errors = line_format.validate_lines(
            record_reader.split_lines(self._read_blocks(0, self.size)) if line_format.has_error_file else ()
        )
        return (f"{len(errors)} lines are wrong." if errors else ""), errors, total

    def split_ranges(self, min_bytes: int | None) -> tuple[ByteRange, ...]:
        """Split the file into ranges of at least `min_bytes`; return one range if None, or if it cannot be cut."""
        if min_bytes is not None and self._is_line_based and self.size:
            return tuple(
                split_byte_ranges(
                    self._read_blocks(0, self.size), min_bytes, has_quotes=self._inbox_file.suffix == ".csv"
                )
            )
        return (ByteRange(0, self.size, 0, 0, 0),)

    def iterate_items(self, byte_range: ByteRange) -> Iterator[InputItem]:
        """Yield what remains to be answered of a byte range."""
        if byte_range.is_done:
            return
        if not self._is_line_based:
            data = b"".join(self._read_blocks(0, self.size))
            yield InputItem(
                1,
                len(data),
                ExampleFile(data) if self._inbox_file.suffix in EXAMPLE_SUFFIXES else record_reader.parse_input(data),
            )
            return
        file_lines = record_reader.split_lines(
            self._read_blocks(byte_range.position, byte_range.end), byte_range.position, byte_range.line
        )
        if self._inbox_file.suffix in LINE_SUFFIXES:
            yield from record_reader.parse_json_lines(file_lines, self._inbox_file.line_format.parse_line)
            return
        rows = record_reader.parse_csv_rows(self._read_header(), file_lines)
        if byte_range.position == 0:
            next(rows, None)  # the header itself
        yield from rows

    def compute_sha256(self) -> str:
        """Compute the SHA-256 of the whole file, in hex."""
        return hash_chunks(self._read_blocks(0, self.size))[1]

    def _check_readable(self) -> None:
        """Refuse a file that cannot be read at all."""
        suffix, max_bytes = (
            self._inbox_file.suffix,
            MAX_BATCH_BYTES if self._inbox_file.line_format.has_error_file else MAX_FILE_BYTES,
        )
        if self._inbox_file.unreadable_reason:
            raise InvalidInputError(self._inbox_file.unreadable_reason)
        if suffix not in SUFFIXES:
            raise InvalidInputError(f"A file that ends in {suffix!r} is not read; send one of {', '.join(SUFFIXES)}.")
        if self.size > max_bytes and (self._inbox_file.line_format.has_error_file or not self._is_line_based):
            raise InvalidInputError(f"The file has {self.size:,} bytes; one of its kind may have {max_bytes:,}.")
        if suffix not in (TABLE_SUFFIX, *EXAMPLE_SUFFIXES):
            check_encoding(b"".join(self._read_blocks(0, min(self.size, HEAD_BYTES))))
        if suffix == ".csv":
            self._read_header()

    def _read_header(self) -> TableHeader:
        return record_reader.read_header(record_reader.split_lines(self._read_blocks(0, self.size)))

    def _read_blocks(self, start: int, end: int) -> Iterator[bytes]:
        return self._store.iterate_blocks(self._inbox_file.path, start, end, self.e_tag)


def check_encoding(head: bytes) -> None:
    """Refuse a file of text that begins as something else does, with what it is."""
    found = next((each for each in OTHER_ENCODINGS if head.startswith(each[0])), None)
    if found is not None:
        raise InvalidInputError(f"The file is {found[1]}; {found[2]} and send it again.")


def split_byte_ranges(blocks: Iterable[bytes], min_bytes: int, *, has_quotes: bool = False) -> Iterator[ByteRange]:
    """Split a file's bytes into ranges of at least `min_bytes` each but the last, with the lines before each counted.

    A file is cut after the end of a line that no quotes enclose. A quote in a CSV field is doubled (RFC 4180), so after
    an even number of them a newline ends a row.
    """
    start = first = lines = position = quotes = 0
    for block in blocks:
        at = 0  # in the block, all before is counted
        while (cut := block.find(b"\n", max(at, start + min_bytes - position - 1))) >= 0:
            lines += block.count(b"\n", at, cut + 1)
            quotes += block.count(b'"', at, cut) if has_quotes else 0
            at = cut + 1
            if quotes % 2 == 0:
                yield ByteRange(start, position + at, first, start, first)
                start, first = position + at, lines
        lines += block.count(b"\n", at)
        quotes += block.count(b'"', at) if has_quotes else 0
        position += len(block)
    if position > start:
        yield ByteRange(start, position, first, start, first)
