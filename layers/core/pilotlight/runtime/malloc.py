"""Configure whether glibc keeps freed memory while a model is fetched, or returns it while a model is opened.

glibc keeps freed blocks of up to 32 MB for reuse, and onnxruntime frees a copy of every weight while it opens a graph:
the peak of a 100 MB model is 366 MB if they are kept and about 310 MB if not (infra/decisions/0019). They are kept for
requests, since each tensor of a megabyte would otherwise cause page faults anew.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
OPENING_THRESHOLD = 256 << 10  # bytes; while a model is opened, larger blocks go back to the system when freed
# The fields of struct mallinfo2 in glibc's malloc.h.
MALLOC_COUNTERS = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip
SERVING_THRESHOLD = 32 << 20  # the largest value that glibc's own adaptive threshold reaches; it trims from twice that


@contextmanager
def return_freed_memory() -> Iterator[None]:
    """Return large freed blocks to the system immediately, in this context; without glibc, do nothing."""
    library = load_glibc()
    if library is None:
        yield
        return
    library.mallopt(MMAP_THRESHOLD, OPENING_THRESHOLD)
    try:
        yield
    finally:
        library.mallopt(MMAP_THRESHOLD, SERVING_THRESHOLD)
        library.mallopt(TRIM_THRESHOLD, 2 * SERVING_THRESHOLD)


@contextmanager
def reuse_freed_memory() -> Iterator[None]:
    """Keep freed blocks in this context and return them after it, for many large buffers one after the other.

    obstore allocates a buffer for each MB that it reads, and glibc by default gets each from the system: over TLS that
    is half of the CPU time of a fetch (infra/decisions/0017).
    """
    library = load_glibc()
    if library is None:
        yield
        return
    library.mallopt(MMAP_THRESHOLD, SERVING_THRESHOLD)
    library.mallopt(TRIM_THRESHOLD, 2 * SERVING_THRESHOLD)
    try:
        yield
    finally:
        library.malloc_trim(0)


def return_all_freed_memory() -> None:
    """Return all freed blocks to the system, so that new ones show as resident again; without glibc, do nothing."""
    library = load_glibc()
    if library is not None:
        library.malloc_trim(0)


def count_allocated_bytes() -> int:
    """Count the bytes that are allocated in all arenas and in blocks of their own; 0 without glibc 2.33 or newer."""
    library = load_glibc()
    if library is None or not hasattr(library, "mallinfo2"):
        return 0
    library.mallinfo2.restype = MallocStatistics
    statistics = library.mallinfo2()
    return int(statistics.uordblks + statistics.hblkhd)


class MallocStatistics(ctypes.Structure):
    """The result of glibc's mallinfo2; the names are its own."""

    _fields_ = [(name, ctypes.c_size_t) for name in MALLOC_COUNTERS]


@cache
def load_glibc() -> Any:  # noqa: ANN401 - ctypes creates its functions on access
    """Load the C library if it is glibc, else return None."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "mallopt") and hasattr(library, "gnu_get_libc_version") else None
