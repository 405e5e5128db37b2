"""What a file holds: why it is refused, where it may be cut, and item after item of any span of it.

It reads one object as it was first seen (If-Match), and knows neither models nor results.
"""

from collections.abc import Iterator, Sequence

from functions.batch_worker import line_reader
from functions.batch_worker.inputs import Picture
from functions.batch_worker.line_reader import Item
from functions.batch_worker.paths import IMAGES, KINDS, LINES, File
from functions.batch_worker.spans import spans
from pilotlight.contracts.batch import Span, Wrong
from pilotlight.errors import InvalidInputError
from pilotlight.storage.download import measured
from pilotlight.storage.object_store import ObjectStore

LARGEST = 50_000_000  # bytes of a file that is not read in lines
LARGEST_BATCH = 1_000_000_000  # bytes: all of it is examined within one invocation


class Reading:
    """One file of a store."""

    def __init__(self, store: ObjectStore, found: File) -> None:
        self._store = store
        self._file = found
        self.size, self.e_tag = store.stamp(found.path)
        self._in_lines = found.kind in (*LINES, ".csv")

    def examined(self) -> tuple[str, Sequence[Wrong], int]:
        """Why the file is refused as a whole, in a sentence and line by line, and how many requests it holds."""
        try:
            self._check()
        except InvalidInputError as exc:
            return str(exc), (), 0
        form = self._file.form
        total, wrong = form.examined(line_reader.lines(self._blocks(0, self.size)) if form.apart else ())
        return (f"{len(wrong)} lines are wrong." if wrong else ""), wrong, total

    def spans(self, length: int | None) -> tuple[Span, ...]:
        """The file in spans of at least so many bytes; in one where none are given, and where it is not cut."""
        if length is not None and self._in_lines and self.size:
            return tuple(spans(self._blocks(0, self.size), length, quoted=self._file.kind == ".csv"))
        return (Span(0, self.size, 0, 0, 0),)

    def items(self, span: Span) -> Iterator[Item]:
        """What is still to be answered of a span."""
        if span.done:
            return
        if not self._in_lines:
            data = b"".join(self._blocks(0, self.size))
            yield Item(1, len(data), Picture(data) if self._file.kind in IMAGES else line_reader.parsed(data))
            return
        found = line_reader.lines(self._blocks(span.position, span.end), span.position, span.line)
        if self._file.kind in LINES:
            yield from line_reader.bodies(found, self._file.form.parsed)
            return
        names = self._header()
        rows = line_reader.rows(names, found)
        if span.position == 0:
            next(rows, None)  # the header itself
        yield from rows

    def sha256(self) -> str:
        """Of all of it, in hex."""
        return measured(self._blocks(0, self.size))[1]

    def _check(self) -> None:
        """Refuse a file that cannot be read at all."""
        kind, most = self._file.kind, LARGEST_BATCH if self._file.form.apart else LARGEST
        if self._file.unreadable:
            raise InvalidInputError(self._file.unreadable)
        if kind not in KINDS:
            raise InvalidInputError(f"A file that ends in {kind!r} is not read; send one of {', '.join(KINDS)}.")
        if self.size > most and (self._file.form.apart or not self._in_lines):
            raise InvalidInputError(f"The file has {self.size:,} bytes; one of its kind may have {most:,}.")
        if kind == ".csv":
            self._header()

    def _header(self) -> list[str]:
        return line_reader.header(line_reader.lines(self._blocks(0, self.size)))

    def _blocks(self, start: int, end: int) -> Iterator[bytes]:
        return self._store.blocks(self._file.path, start, end, self.e_tag)
