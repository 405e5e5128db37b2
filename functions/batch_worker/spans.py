"""Where a file of lines may be cut, so that several workers can read it: behind a line's end, which no quotes enclose.

A quote in a CSV field is doubled (RFC 4180), so that behind an even number of them a newline ends a row.
"""

from collections.abc import Iterable, Iterator

from pilotlight.contracts.batch import ByteRange


def split_byte_ranges(blocks: Iterable[bytes], min_bytes: int, *, has_quotes: bool = False) -> Iterator[ByteRange]:
    """The file's bytes in spans of at least `min_bytes` each but the last, with the number of lines before each."""
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
