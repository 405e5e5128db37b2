"""A file of any length as what there is to answer, one after the other, from any place in it.

Each item ends at a byte of the file behind which reading can go on; nothing here knows models or stores.
"""

import csv
from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from functions.batch_worker.inputs import Body, Json, Row
from pilotlight.errors import InvalidInputError

LONGEST = 6_000_000  # bytes of a line, as of a request
MARK = b"\xef\xbb\xbf"  # that some programs write before UTF-8


class Line(Struct, frozen=True):
    """A line without its end; None where it is longer than `LONGEST`."""

    number: int  # from 1
    end: int  # bytes of the file up to and with its newline
    data: bytes | None


class Item(Struct, frozen=True):
    """What is to be answered, or why it cannot be read."""

    number: int  # of the line that it ends at
    end: int
    body: Body | InvalidInputError


def lines(chunks: Iterable[bytes], position: int = 0, number: int = 0) -> Iterator[Line]:
    """The lines of a file's bytes from `position` on, `number` lines behind its beginning; long ones are not kept."""
    rest, dropped = b"", 0
    for chunk in chunks:
        *whole, last = (rest + chunk).split(b"\n")
        for data in whole:
            position, number = position + dropped + len(data) + 1, number + 1
            yield Line(number, position, None if dropped or len(data) > LONGEST else unmarked(data, number))
            dropped = 0
        rest = last
        if len(rest) > LONGEST:
            rest, dropped = b"", dropped + len(rest)
    if rest or dropped:
        yield Line(number + 1, position + dropped + len(rest), None if dropped else unmarked(rest, number + 1))


def unmarked(data: bytes, number: int) -> bytes:
    """The line without the byte order mark that a file may begin with."""
    return data.removeprefix(MARK) if number == 1 else data


def bodies(found: Iterable[Line], read: Callable[[bytes], Body] = Json.read) -> Iterator[Item]:
    """JSON lines; blank ones are passed over."""
    for line in found:
        if line.data is None or line.data.strip():
            yield Item(line.number, line.end, parsed(line.data, read))


def parsed(data: bytes | None, read: Callable[[bytes], Body] = Json.read) -> Body | InvalidInputError:
    """One body, or what is wrong with it."""
    if data is None:
        return InvalidInputError(f"The line is longer than {LONGEST:,} bytes; send fewer items in each.")
    try:
        return read(data)
    except InvalidInputError as exc:
        return exc


class Pulled:
    """Lines as texts for python's csv, which pulls as many as a row takes; remembers how far it has come."""

    def __init__(self, found: Iterator[Line]) -> None:
        self._found = found
        self.last = Line(0, 0, b"")

    def __iter__(self) -> "Pulled":
        return self

    def __next__(self) -> str:
        self.last = next(self._found)
        if self.last.data is None:
            raise InvalidInputError(f"The line is longer than {LONGEST:,} bytes.")
        try:
            return self.last.data.decode() + "\n"
        except UnicodeDecodeError as exc:
            raise InvalidInputError(f"The line is not utf-8: {exc}.") from exc


def header(found: Iterator[Line]) -> list[str]:
    """The names of the columns: the first row; `InvalidInputError` when there is none, or a name comes twice."""
    names = next(table(found), None)
    if names is None:
        raise InvalidInputError("The CSV is empty; its first line names the columns.")
    if isinstance(names[1], InvalidInputError):
        raise names[1]
    if len(set(names[1])) < len(names[1]):
        raise InvalidInputError(f"The columns {names[1]} name one twice.")
    return names[1]


def rows(names: list[str], found: Iterator[Line]) -> Iterator[Item]:
    """The rows of a table with these columns, whose header lies behind or is among the first lines."""
    for line, cells in table(found):
        if isinstance(cells, InvalidInputError):
            yield Item(line.number, line.end, cells)
        elif len(cells) == len(names):
            yield Item(line.number, line.end, Row(dict(zip(names, cells, strict=True))))
        else:
            wrong = InvalidInputError(f"The row has {len(cells)} values, but there are {len(names)} columns.")
            yield Item(line.number, line.end, wrong)


def table(found: Iterator[Line]) -> Iterator[tuple[Line, list[str] | InvalidInputError]]:
    """Rows that are not blank, each with the line that it ends at."""
    pulled = Pulled(found)
    reader = csv.reader(pulled, strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except InvalidInputError as exc:
            yield pulled.last, exc
        except csv.Error as exc:
            yield pulled.last, InvalidInputError(f"The row is not CSV: {exc}.")
        else:
            if cells:
                yield pulled.last, cells
