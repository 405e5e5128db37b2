"""Where a file of lines may be cut, so that several workers can read it: behind a line's end, which no quotes enclose.

A quote in a CSV field is doubled (RFC 4180), so that behind an even number of them a newline ends a row.
"""

from collections.abc import Iterable, Iterator

from pilotlight.contracts.batch import Span


def spans(blocks: Iterable[bytes], length: int, *, quoted: bool = False) -> Iterator[Span]:
    """The file's bytes in spans of at least `length` each but the last, with the number of lines before each."""
    start = first = lines = position = quotes = 0
    for block in blocks:
        at = 0  # in the block, all before is counted
        while (cut := block.find(b"\n", max(at, start + length - position - 1))) >= 0:
            lines += block.count(b"\n", at, cut + 1)
            quotes += block.count(b'"', at, cut) if quoted else 0
            at = cut + 1
            if quotes % 2 == 0:
                yield Span(start, position + at, first, start, first)
                start, first = position + at, lines
        lines += block.count(b"\n", at)
        quotes += block.count(b'"', at) if quoted else 0
        position += len(block)
    if position > start:
        yield Span(start, position, first, start, first)
