"""What a test wrote to the captured streams, read without moving their place.

`capfd.readouterr` seeks to the beginning and then reads. Processes that a test has started share that place, so that a
server's line in between overwrites what the test wrote, and nothing is left to be read.
"""

import os

OUT, ERR = 1, 2  # descriptors, which `capfd` leads to files


def count_captured() -> tuple[int, int]:
    """The bytes that standard output and standard error have so far."""
    return os.fstat(OUT).st_size, os.fstat(ERR).st_size


def read_captured(starts: tuple[int, int]) -> tuple[str, str]:
    """What came to standard output and standard error since they had so many bytes."""
    ends = count_captured()
    out, err = (
        os.pread(descriptor, end - start, start).decode(errors="replace")
        for descriptor, start, end in zip((OUT, ERR), starts, ends, strict=True)
    )
    return out, err
