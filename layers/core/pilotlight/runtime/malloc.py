"""The C heap while a model is fetched, and while it is opened: whether freed blocks are kept, or the system's at once.

glibc keeps freed blocks of up to 32 MB for the next one, and onnxruntime frees a copy of every weight while it opens a
graph: the peak of a 100 MB model is 366 MB with that habit and some 310 without (infra/decisions/0019). Requests keep
the habit, since a tensor of a megabyte would else be paged in anew each time.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's names for them, M_..., in malloc.h
OPENING_THRESHOLD = 256 << 10  # bytes; while a model is opened, larger blocks go back to the system when freed
SERVING_THRESHOLD = 32 << 20  # the largest value that glibc's own adaptive threshold reaches; it trims from twice that


@contextmanager
def return_freed_memory() -> Iterator[None]:
    """Give large blocks back at once, in this context; nothing changes where the C library is not glibc."""
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
    """Keep freed blocks in this context, and give them back after it: for many large buffers one after the other.

    obstore takes a fresh one for each MB that it reads, which glibc by itself gets from the system anew each time: over
    TLS that is half of the CPU of a fetch (infra/decisions/0017).
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


@cache
def load_glibc() -> Any:  # noqa: ANN401 - ctypes makes its functions as they are asked for
    """The C library if it is glibc, else None."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "mallopt") and hasattr(library, "gnu_get_libc_version") else None
